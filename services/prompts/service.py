"""Prompts as administrators manage them: create one, add versions, activate a version.

Versions never change, so going back is activating an older one. Turns read them through
`base_prompts.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Uuid, bindparam
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.errors import PROMPT_BLANK, PROMPT_TOO_LONG, UNKNOWN_PLACEHOLDER
from schema.ids import PromptId, UserId, new_id
from schema.pages import Page, PageRequest
from schema.prompts import (
    CreatePromptRequest,
    CreatePromptVersionRequest,
    Prompt,
    PromptActivation,
    PromptDetail,
    PromptSort,
    PromptVersion,
    PromptVersionSort,
)
from schema.result import Err, Ok, Result
from schema.tables import PromptActivationRow, PromptRow, PromptVersionRow
from services.audit import record
from services.database import Database
from services.database.queries import Listing, Order, by_id
from services.prompts.base_prompts import PLACEHOLDERS, unknown_placeholders
from services.prompts.tokens import tokens_of
from services.resources import Conflict, Unreachable, create_once, touch, why_unreachable


def prompt_from_row(row: PromptRow) -> Prompt:
    """Return the prompt that the row holds."""
    return Prompt.model_validate(row, from_attributes=True)


def detail_from_rows(row: PromptRow, activations: Iterable[PromptActivationRow]) -> PromptDetail:
    """Return the prompt with some of its activations."""
    newest = [
        PromptActivation.model_validate(activation, from_attributes=True)
        for activation in activations
    ]
    return PromptDetail(**vars(prompt_from_row(row)), activations=newest)


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


def problems_of(content: str, *, max_tokens: int) -> tuple[str, ...]:
    """Return the problems of a prompt, a sentence each; none if it can be used."""
    problems: list[str] = []
    if not content.strip():
        problems.append(PROMPT_BLANK)
    tokens = tokens_of(content)
    if tokens >= max_tokens:
        problems.append(PROMPT_TOO_LONG.format(tokens, max_tokens))
    known = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
    problems += [
        UNKNOWN_PLACEHOLDER.format(name[:50], known) for name in unknown_placeholders(content)[:10]
    ]
    return tuple(problems)


_ACTIVATIONS_SHOWN: Final = 20
_ORDERS: Final = {
    PromptSort.NAME: Order("name", (col(PromptRow.name),)),
    PromptSort.NAME_LAST: Order("-name", (col(PromptRow.name),), descending=True),
    PromptSort.CREATED: Order("createdAt", (col(PromptRow.id),)),
    PromptSort.CREATED_LAST: Order("-createdAt", (col(PromptRow.id),), descending=True),
}
_VERSION_ORDERS: Final = {
    PromptVersionSort.NUMBER: Order("number", (col(PromptVersionRow.number),)),
    PromptVersionSort.NUMBER_LAST: Order(
        "-number", (col(PromptVersionRow.number),), descending=True
    ),
}
_PROMPT_ID: Final = bindparam("prompt_id", type_=Uuid)
_PROMPTS: Final = Listing(select(PromptRow))
_PROMPT: Final = by_id(PromptRow)
_VERSIONS: Final = Listing(
    select(PromptVersionRow).where(col(PromptVersionRow.prompt_id) == _PROMPT_ID)
)


class PromptRefusal(StrEnum):
    """Why a prompt can't be created, or a version can't be found."""

    NAME_TAKEN = "name_taken"
    NO_SUCH_VERSION = "no_such_version"


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a version can't be activated, a sentence for each problem."""

    problems: tuple[str, ...]


class _VersionOf(BaseModel):
    """The identity of a request for a new version: an idempotency key covers the prompt, too."""

    prompt_id: PromptId
    request: CreatePromptVersionRequest


class PromptService:
    """Manages prompts. Errors: DatabaseUnavailableError.

    Units: a version with `max_tokens` or more can't be activated.
    """

    def __init__(self, database: Database, *, max_tokens: int) -> None:
        self._database = database
        self._max_tokens = max_tokens

    async def create(
        self, actor: Actor, request: CreatePromptRequest, *, key: str | None
    ) -> Result[PromptDetail, PromptRefusal | Conflict]:
        """Create a prompt, with its first version if there is content.

        Idempotency: the same key with the same request returns the prompt created before.
        """
        prompt_id = PromptId(new_id())

        async def create(session: AsyncSession) -> Result[PromptDetail, PromptRefusal]:
            row = await _insert(session, prompt_id, request)
            if row is None:
                return Err(PromptRefusal.NAME_TAKEN)
            _record(session, actor, AuditAction.PROMPT_CREATED, row)
            if request.content is not None:
                _add_version(session, actor, row, content=request.content, note="")
            await session.flush()
            return Ok(detail_from_rows(row, ()))

        return await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=prompt_id,
            create=create,
            find=lambda earlier: self.get(actor, PromptId(UUID(earlier))),
        )

    async def list_prompts(
        self, actor: Actor, page: PageRequest, *, sort: PromptSort
    ) -> Page[Prompt]:
        """Return the prompts. Errors: InvalidCursorError."""
        async with self._database.statements(actor) as connection:
            rows = await _PROMPTS.read(connection, page, _ORDERS[sort])
        return rows.map(prompt_from_row)

    async def get(self, actor: Actor, prompt_id: PromptId) -> Result[PromptDetail, Unreachable]:
        """Return one prompt."""
        async with self._database.transaction(actor) as session:
            row = await session.get(PromptRow, prompt_id)
            if row is not None:
                return Ok(await _detail(session, row))
        return Err(await why_unreachable(self._database, PromptRow, prompt_id))

    async def list_versions(
        self, actor: Actor, prompt_id: PromptId, page: PageRequest, *, sort: PromptVersionSort
    ) -> Result[Page[PromptVersion], Unreachable]:
        """Return the versions of a prompt. Errors: InvalidCursorError."""
        its = {"prompt_id": prompt_id}
        async with self._database.statements(actor) as connection:
            prompt = await _PROMPT.first(connection, id=prompt_id)
            if prompt is not None:
                rows = await _VERSIONS.read(connection, page, _VERSION_ORDERS[sort], its)
                return Ok(rows.map(lambda row: version_from_row(row, prompt)))
        return Err(await why_unreachable(self._database, PromptRow, prompt_id))

    async def add_version(
        self,
        actor: Actor,
        prompt_id: PromptId,
        request: CreatePromptVersionRequest,
        *,
        key: str | None,
    ) -> Result[PromptVersion, Conflict | Unreachable]:
        """Add a version to a prompt; it is not active yet.

        Idempotency: the same key with the same request returns the version created before.
        """

        async def next_number(session: AsyncSession) -> Result[int, Unreachable]:
            # Under the lock of its prompt, so that numbers are consecutive and unique.
            prompt = await session.get(PromptRow, prompt_id, with_for_update=True)
            return Err(Unreachable.MISSING) if prompt is None else Ok(prompt.latest_version + 1)

        async def create(session: AsyncSession) -> Result[PromptVersion, Unreachable]:
            prompt = await session.get_one(PromptRow, prompt_id)
            row = _add_version(session, actor, prompt, content=request.content, note=request.note)
            await session.flush()
            return Ok(version_from_row(row, prompt))

        async def find(earlier: str) -> Result[PromptVersion, Unreachable]:
            async with self._database.transaction(actor) as session:
                prompt = await session.get(PromptRow, prompt_id)
                row = await session.get(PromptVersionRow, (prompt_id, int(earlier)))
            if prompt is None or row is None:
                return Err(Unreachable.MISSING)
            return Ok(version_from_row(row, prompt))

        created = await create_once(
            self._database,
            actor,
            key,
            request=_VersionOf(prompt_id=prompt_id, request=request),
            resource_id=next_number,
            create=create,
            find=find,
        )
        if created == Err(Unreachable.MISSING):
            return Err(await why_unreachable(self._database, PromptRow, prompt_id))
        return created

    async def activate(
        self, actor: Actor, prompt_id: PromptId, number: int
    ) -> Result[PromptDetail, PromptRefusal | Unusable | Unreachable]:
        """Activate a version for new turns; running turns keep theirs.

        Idempotency: activating the version that is active changes nothing.
        """
        async with self._database.transaction(actor) as session:
            prompt = await session.get(PromptRow, prompt_id, with_for_update=True)
            if prompt is not None:
                version = await session.get(PromptVersionRow, (prompt_id, number))
                if version is None:
                    return Err(PromptRefusal.NO_SUCH_VERSION)
                if prompt.active_version != number:
                    problems = problems_of(version.content, max_tokens=self._max_tokens)
                    if problems:
                        return Err(Unusable(problems))
                    _activate(session, actor, prompt, number)
                    await session.flush()
                return Ok(await _detail(session, prompt))
        return Err(await why_unreachable(self._database, PromptRow, prompt_id))


async def _insert(
    session: AsyncSession, prompt_id: PromptId, request: CreatePromptRequest
) -> PromptRow | None:
    """Store a prompt without versions, or return None if its name is taken."""
    values = {"id": prompt_id, "name": request.name, "description": request.description}
    made = insert(PromptRow).values(values).on_conflict_do_nothing(constraint="prompts_name_key")
    if (await session.exec(made.returning(col(PromptRow.id)))).first() is None:
        return None
    return await session.get_one(PromptRow, prompt_id)


def _add_version(
    session: AsyncSession, actor: Actor, prompt: PromptRow, *, content: str, note: str
) -> PromptVersionRow:
    prompt.latest_version += 1
    touch(prompt)
    row = PromptVersionRow(
        prompt_id=prompt.id,
        number=prompt.latest_version,
        content=content,
        note=note,
        created_by=actor.user_id,
    )
    session.add(row)
    _record(session, actor, AuditAction.PROMPT_VERSION_CREATED, prompt, number=row.number)
    return row


def _activate(session: AsyncSession, actor: Actor, prompt: PromptRow, number: int) -> None:
    before = prompt.active_version
    prompt.active_version = number
    touch(prompt)
    session.add(
        PromptActivationRow(
            id=new_id(), prompt_id=prompt.id, number=number, activated_by=actor.user_id
        )
    )
    _record(session, actor, AuditAction.PROMPT_ACTIVATED, prompt, number=number, before=before)


def _record(
    session: AsyncSession,
    actor: Actor,
    action: AuditAction,
    prompt: PromptRow,
    **numbers: int | None,
) -> None:
    details = {"name": prompt.name, **numbers}
    record(session, actor, action, _named(PromptId(prompt.id)), details=details)


def _named(prompt_id: PromptId) -> tuple[ResourceType, PromptId]:
    return ResourceType.PROMPT, prompt_id


async def _detail(session: AsyncSession, row: PromptRow) -> PromptDetail:
    query = select(PromptActivationRow).where(col(PromptActivationRow.prompt_id) == row.id)
    newest = query.order_by(col(PromptActivationRow.id).desc()).limit(_ACTIVATIONS_SHOWN)
    return detail_from_rows(row, (await session.exec(newest)).all())
