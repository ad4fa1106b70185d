"""Asks the model for suggestions, and meters what that costs; stores nothing.

ModelCallError    the provider failed
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from math import ceil
from typing import Final

import structlog

from schema.ids import MemoryId
from schema.memories import MemorySuggestion
from schema.usage import TokenUsage
from services.memory_extraction.answers import read_suggestions
from services.memory_extraction.prompt import Said, extraction_request, text_of
from services.models.failures import FailureKind, ModelCallError, broken_stream, runaway
from services.models.gateway import (
    AnswerEnded,
    AnswerStarted,
    ModelEvent,
    ModelGateway,
    ModelRequest,
    TextArrived,
    ThoughtArrived,
)
from services.prompts.tokens import THINKING_CHARS_PER_TOKEN, exact_tokens, tokens_of

_log = structlog.get_logger(__name__)

_ANSWER_TIMEOUT: Final = timedelta(minutes=2)
_MAY_LACK_STRUCTURE: Final = frozenset({FailureKind.REFUSED, FailureKind.TOOLS_REFUSED})
_REFUSAL: Final = "refusal"


class ExtractionMeter:
    """What one call has used so far. Units: `input_tokens` is the estimate of the prompt."""

    def __init__(self, input_tokens: int) -> None:
        self._input_tokens = input_tokens
        self._started: TokenUsage | None = None
        self._ended: AnswerEnded | None = None
        self._written = 0.0

    def count(self, event: ModelEvent) -> None:
        """Count an event of the answer."""
        match event:
            case AnswerStarted():
                self._started = event.usage
            case ThoughtArrived():
                self._written += event.chars / THINKING_CHARS_PER_TOKEN
            case TextArrived():
                self._written += exact_tokens(event.text)
            case AnswerEnded():
                self._ended = event

    def used(self, failure: BaseException | None) -> tuple[TokenUsage, bool]:
        """Return the usage as far as it is known, and whether that is an estimate.

        A request that the provider refused costs nothing.
        """
        if self._ended is not None:
            return self._ended.usage, self._ended.usage_estimated
        if self._started is not None:
            written = max(self._started.output_tokens, ceil(self._written))
            return self._started.model_copy(update={"output_tokens": written}), True
        if isinstance(failure, ModelCallError) and not failure.was_answering:
            return TokenUsage(), False
        return TokenUsage(input_tokens=self._input_tokens), True


class MemoryExtractor:
    """Lets a model read what a user said. Units: `timeout` bounds one answer."""

    def __init__(
        self, gateway: ModelGateway, *, model: str, timeout: timedelta = _ANSWER_TIMEOUT
    ) -> None:
        self._gateway = gateway
        self.model: Final = model
        self._timeout_s = timeout.total_seconds()
        self._is_plain = False

    def meter(self, said: Said) -> ExtractionMeter:
        """Return the meter of a call that is yet to be made."""
        return ExtractionMeter(self.estimated_tokens(said))

    def estimated_tokens(self, said: Said) -> int:
        """Return roughly how many tokens the prompt has."""
        return tokens_of(text_of(extraction_request(self.model, said, structured=False)))

    async def extract(
        self, said: Said, known: Sequence[MemoryId], meter: ExtractionMeter
    ) -> list[MemorySuggestion]:
        """Return what the model suggests and the user said; `known` are the ids of `said.known`.

        Errors: ModelCallError.
        """
        answer = await self._ask(said, meter)
        if answer.stop_reason == _REFUSAL:
            return []
        return read_suggestions(answer.blocks, own=said.own, known=known)

    async def _ask(self, said: Said, meter: ExtractionMeter) -> AnswerEnded:
        """Ask for structured output, or in words alone where the provider takes no schema.

        A refused request is free.
        """
        if not self._is_plain:
            try:
                return await self._stream(
                    extraction_request(self.model, said, structured=True), meter
                )
            except ModelCallError as error:
                if error.kind not in _MAY_LACK_STRUCTURE:
                    raise
        answer = await self._stream(extraction_request(self.model, said, structured=False), meter)
        if not self._is_plain:
            _log.info("structured_output_refused", model=self.model)
            self._is_plain = True
        return answer

    async def _stream(self, request: ModelRequest, meter: ExtractionMeter) -> AnswerEnded:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                aclosing(self._gateway.stream(request)) as events,
            ):
                async for event in events:
                    meter.count(event)
                    if isinstance(event, AnswerEnded):
                        return event
        except TimeoutError:
            raise runaway() from None
        raise broken_stream()
