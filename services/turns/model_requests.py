"""The request of an attempt, its prompt cut where it may be longer than its model takes."""

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import chain
from math import ceil
from typing import Final

from services.models.context_windows import ContextWindows
from services.models.failures import FailureKind, ModelCallError
from services.models.gateway import ModelRequest
from services.models.token_counts import TokenCounts
from services.prompts.conversation import conversation
from services.prompts.fitting import fitted, shortened, tokens_in
from services.prompts.layers import default_layers, system_blocks, without_tools
from services.tools.offered_schema import tool_params
from services.tools.refusals import ToolTrials, called_tools
from services.turns.steps import NewAttempt

_NEAR: Final = 0.85
"""The part of what the model takes from which on an estimate is not enough."""

_SPARED: Final = 0.98
_MOST_COUNTS: Final = 3


def model_request(attempt: NewAttempt, *, left_out: Collection[str], longest: int) -> ModelRequest:
    """Return what an attempt asks its model, without the tools that are left out.

    Units: `longest` is how many tokens an answer may have that no budget shortens.
    """
    layers = without_tools(attempt.layers or default_layers(()), left_out)
    material = attempt.material
    earlier = (said.work.steps for said in material.messages if said.work is not None)
    return ModelRequest(
        model=attempt.model,
        system=system_blocks(layers, marks_shared=not material.steps),
        messages=conversation(material, summary=layers.summary, context=layers.context),
        tools=tool_params(layers.offered) or called_tools(chain(*earlier, material.steps)),
        max_tokens=attempt.max_tokens,
        longest=longest,
    )


def with_less(attempt: NewAttempt, error: ModelCallError, trials: ToolTrials) -> NewAttempt | None:
    """Return the attempt without what its provider refused, or None if nothing can be left out."""
    if error.kind is FailureKind.TOO_LARGE:
        shorter = shortened(attempt.material)
        return None if shorter is None else replace(attempt, material=shorter, is_cut=True)
    is_for_a_tool = error.kind is FailureKind.TOOLS_REFUSED
    return attempt if is_for_a_tool and trials.take_refusal(error.refused_tool_index) else None


class PromptCutting:
    """Asks the provider how long a prompt is that may be too long, and cuts it to what fits."""

    def __init__(self, windows: ContextWindows, counts: TokenCounts) -> None:
        self._windows = windows
        self._counts = counts

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
