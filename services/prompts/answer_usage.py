"""What one streamed answer has used so far, whatever becomes of it."""

from math import ceil

from schema.usage import TokenUsage
from services.models.failures import ModelCallError
from services.models.gateway import (
    AnswerEnded,
    AnswerStarted,
    ModelEvent,
    TextArrived,
    ThoughtArrived,
)
from services.prompts.tokens import THINKING_CHARS_PER_TOKEN, exact_tokens


class AnswerUsage:
    """Counts the events of one call's answer. Units: `input_tokens` is the prompt's estimate."""

    def __init__(self, input_tokens: int) -> None:
        self.input_tokens = input_tokens
        self._started: TokenUsage | None = None
        self._ended: AnswerEnded | None = None
        self._written = 0.0

    @property
    def has_started(self) -> bool:
        """Whether the provider has begun to answer."""
        return self._started is not None

    def count(self, event: ModelEvent) -> None:
        """Count an event of the stream."""
        match event:
            case AnswerStarted():
                self._started = event.usage
            case ThoughtArrived():
                self._written += len(event.text) / THINKING_CHARS_PER_TOKEN
            case TextArrived():
                self._written += exact_tokens(event.text)
            case AnswerEnded():
                self._ended = event

    def used(self, failure: BaseException | None) -> tuple[TokenUsage, bool]:
        """Return the usage as far as it is known, and whether that is an estimate.

        A provider counts output tokens only at the end; output that was cut off is counted by its
        length. A request that the provider refused costs nothing.
        """
        if self._ended is not None:
            return self._ended.usage, self._ended.usage_estimated
        if self._started is not None:
            written = max(self._started.output_tokens, ceil(self._written))
            return self._started.model_copy(update={"output_tokens": written}), True
        if isinstance(failure, ModelCallError) and not failure.was_answering:
            return TokenUsage(), False
        return TokenUsage(input_tokens=self.input_tokens), True
