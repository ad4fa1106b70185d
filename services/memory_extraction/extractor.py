"""Asks the model for suggestions, and meters what that costs; stores nothing.

ModelCallError    the provider failed
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from schema.ids import MemoryId
from schema.memories import MemorySuggestion
from services.background_calls import ANSWER_TIMEOUT, answer_of
from services.memory_extraction.answers import read_suggestions
from services.memory_extraction.prompt import Said, extraction_request, prompt_tokens
from services.models.failures import FailureKind, ModelCallError
from services.models.gateway import AnswerEnded, ModelGateway, ModelRequest
from services.prompts.answer_usage import AnswerUsage

_log = structlog.get_logger(__name__)

_MAY_LACK_STRUCTURE: Final = frozenset({FailureKind.REFUSED, FailureKind.TOOLS_REFUSED})
_REFUSAL: Final = "refusal"


class MemoryExtractor:
    """Lets a model read what a user said. Units: `timeout` bounds one answer."""

    def __init__(
        self, gateway: ModelGateway, *, model: str, timeout: timedelta = ANSWER_TIMEOUT
    ) -> None:
        self._gateway = gateway
        self.model: Final = model
        self._timeout = timeout
        self._is_plain = False

    def usage_before(self, said: Said) -> AnswerUsage:
        """Return the usage of a call that is yet to be made: none but an estimated prompt."""
        return AnswerUsage(prompt_tokens(said))

    async def extract(
        self, said: Said, known: Sequence[MemoryId], usage: AnswerUsage
    ) -> list[MemorySuggestion]:
        """Return what the model suggests and the user said; `known` are the ids of `said.known`.

        Errors: ModelCallError.
        """
        answer = await self._ask(said, usage)
        if answer.stop_reason == _REFUSAL:
            return []
        return read_suggestions(answer.blocks, own=said.own, known=known)

    async def _ask(self, said: Said, usage: AnswerUsage) -> AnswerEnded:
        """Ask for structured output, or in words alone where the provider takes no schema.

        A refused request is free.
        """
        if not self._is_plain:
            try:
                return await self._stream(
                    extraction_request(self.model, said, structured=True), usage
                )
            except ModelCallError as error:
                if error.kind not in _MAY_LACK_STRUCTURE:
                    raise
        answer = await self._stream(extraction_request(self.model, said, structured=False), usage)
        if not self._is_plain:
            _log.info("structured_output_refused", model=self.model)
            self._is_plain = True
        return answer

    async def _stream(self, request: ModelRequest, usage: AnswerUsage) -> AnswerEnded:
        return await answer_of(self._gateway, request, usage, within=self._timeout)
