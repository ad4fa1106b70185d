"""The request of an attempt, its prompt cut where it may be longer than its model takes."""

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Final

from schema.ids import FileId
from services.files.service import FileService
from services.models.context_windows import ContextWindows
from services.models.failures import FailureKind, ModelCallError, Refusable
from services.models.gateway import ModelRequest
from services.models.request_bodies import ContentReader
from services.models.token_counts import TokenCounts
from services.prompts.conversation import conversation
from services.prompts.fitting import fitted, shortened, tokens_in, with_files
from services.prompts.layers import default_layers, system_blocks, without_tools
from services.tools.offered_schema import tool_params
from services.tools.refusals import ToolTrials, called_tools
from services.turns.attempts import NewAttempt
from services.turns.call_settings import without_refused

if TYPE_CHECKING:
    # At run time it would import the whole SDK.
    from anthropic.types import ThinkingConfigParam

_NEAR: Final = 0.85
"""The part of what the model takes from which on an estimate is not enough."""

_SPARED: Final = 0.98
_MOST_COUNTS: Final = 3


def model_request(
    attempt: NewAttempt,
    *,
    left_out: Collection[str],
    longest: int,
    takes_files: bool = True,
    read: ContentReader | None = None,
) -> ModelRequest:
    """Return what an attempt asks its model, without the tools that are left out.

    `read` reads what is attached. Units: `longest` is how many tokens an answer may have that no
    budget shortens.
    """
    layers = without_tools(attempt.layers or default_layers(()), left_out)
    material = with_files(attempt.material, takes_files=takes_files, without=attempt.lost_files)
    settings = attempt.settings
    earlier = (said.work.steps for said in material.messages if said.work is not None)
    system = system_blocks(layers, marks_shared=not material.steps)
    if settings.instructions is not None:
        # Behind the last mark: what is cached stays that of turns without a schema.
        system.append({"type": "text", "text": settings.instructions})
    return ModelRequest(
        model=attempt.model,
        system=system,
        messages=conversation(material, summary=layers.summary, context=layers.context),
        tools=tool_params(layers.offered) or called_tools(chain(*earlier, material.steps)),
        max_tokens=attempt.max_tokens,
        longest=max(longest, settings.longest),
        thinking=_thinking(attempt),
        output=settings.output,
        sampling=settings.sampling,
        stop_sequences=settings.stop_sequences,
        read=read,
    )


def _thinking(attempt: NewAttempt) -> "ThinkingConfigParam | None":
    """Return how the model is asked to think.

    Where it has a budget, the API refuses earlier steps of the turn that don't begin with thinking,
    as after those of another model.
    """
    thinking, steps = attempt.settings.thinking, attempt.material.steps
    if thinking is not None and thinking["type"] == "enabled" and steps:
        return thinking if steps[-1].begins_with_thinking else None
    return thinking


def with_less(attempt: NewAttempt, error: ModelCallError, trials: ToolTrials) -> NewAttempt | None:
    """Return the attempt without what its provider refused, or None if nothing can be left out."""
    if error.lost_file is not None:
        lost = attempt.lost_files | {FileId(error.lost_file)}
        return None if lost == attempt.lost_files else replace(attempt, lost_files=lost)
    if error.kind is FailureKind.TOO_LARGE:
        shorter = shortened(attempt.material)
        return None if shorter is None else replace(attempt, material=shorter, is_cut=True)
    if error.refused_option is Refusable.EARLIER_THINKING:
        return _without_earlier_thinking(attempt)
    settings = without_refused(attempt.settings, error)
    if settings is not None:
        return replace(attempt, settings=settings)
    is_for_a_tool = error.kind is FailureKind.TOOLS_REFUSED
    return attempt if is_for_a_tool and trials.take_refusal(error.refused_tool_index) else None


def _without_earlier_thinking(attempt: NewAttempt) -> NewAttempt | None:
    """Return the attempt without the thoughts of the turn's earlier steps, if there are any.

    A provider takes them only behind the very same prompt, of which something may have been cut.
    """
    steps = [step.without_thinking() for step in attempt.material.steps]
    if steps == list(attempt.material.steps):
        return None
    return replace(attempt, material=attempt.material._replace(steps=steps))


class PromptCutting:
    """Asks the provider how long a prompt is that may be too long, and cuts it to what fits."""

    def __init__(self, windows: ContextWindows, counts: TokenCounts, files: FileService) -> None:
        self._windows = windows
        self._counts = counts
        self._files = files

    def request(
        self, attempt: NewAttempt, left_out: Collection[str], *, longest: int
    ) -> ModelRequest:
        """Return what an attempt asks, with the files that its model takes."""
        return model_request(
            attempt,
            left_out=left_out,
            longest=longest,
            takes_files=self._files.are_taken_by(attempt.model),
            read=self._files.reader_of(attempt.key.user_id),
        )

    async def cut(
        self, attempt: NewAttempt, request_of: Callable[[NewAttempt], ModelRequest]
    ) -> NewAttempt:
        """Return the attempt with what fits; as it is where nothing can be counted or cut."""
        takes = self._windows.takes(attempt.model)
        for _ in range(_MOST_COUNTS):
            if attempt.estimated_input <= takes * _NEAR:
                break
            counted = await self._counts.count(
                request_of(attempt), estimate=attempt.estimated_input
            )
            if counted is None or counted <= takes:
                break
            size = tokens_in(attempt.material)
            material = fitted(attempt.material, limit_tokens=int(size * takes / counted * _SPARED))
            if material is attempt.material:
                break
            estimate = ceil(counted * tokens_in(material) / size)
            attempt = replace(attempt, material=material, estimated_input=estimate, is_cut=True)
        return attempt
