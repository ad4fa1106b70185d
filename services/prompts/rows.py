"""Owns turning rows of prompts into what administrators see."""

from collections.abc import Iterable

from schema.ids import PromptId, UserId
from schema.prompts import Prompt, PromptActivation, PromptDetail, PromptVersion
from schema.tables import PromptActivationRow, PromptRow, PromptVersionRow


def prompt_from_row(row: PromptRow) -> Prompt:
    """Return the prompt that the row holds."""
    return Prompt(
        id=PromptId(row.id),
        name=row.name,
        description=row.description,
        latest_version=row.latest_version,
        active_version=row.active_version,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def detail_from_rows(row: PromptRow, activations: Iterable[PromptActivationRow]) -> PromptDetail:
    """Return the prompt with some of its activations."""
    told = [
        PromptActivation(
            id=activation.id,
            number=activation.number,
            activated_by=None
            if activation.activated_by is None
            else UserId(activation.activated_by),
            created_at=activation.created_at,
        )
        for activation in activations
    ]
    return PromptDetail(**vars(prompt_from_row(row)), activations=told)


def version_from_row(row: PromptVersionRow, prompt: PromptRow) -> PromptVersion:
    """Return the version that the row holds, of the prompt that it belongs to."""
    return PromptVersion(
        prompt_id=PromptId(row.prompt_id),
        number=row.number,
        content=row.content,
        note=row.note,
        active=row.number == prompt.active_version,
        created_by=None if row.created_by is None else UserId(row.created_by),
        created_at=row.created_at,
    )
