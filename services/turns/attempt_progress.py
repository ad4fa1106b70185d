"""How far an attempt at a step has come, and what it has used by then."""

from dataclasses import dataclass, field
from time import perf_counter

from schema.usage import TokenUsage
from services.metrics import count_first_token
from services.prompts.tokens import written_tokens


@dataclass(slots=True)
class AttemptProgress:
    """What is known of an attempt while it runs.

    `usage` is that of the whole answer once `is_counted`; before, what it began with.
    `prompt_tokens` is the uncorrected estimate of what was sent.
    """

    usage: TokenUsage = field(default_factory=TokenUsage)
    prompt_tokens: int = 0
    is_asked: bool = False
    has_started: bool = False
    is_counted: bool = False
    is_estimated: bool = False
    _asked_at: float = 0.0
    _has_text: bool = False

    def ask(self, *, prompt_tokens: int) -> None:
        """Note that the model is asked now."""
        self.is_asked, self.prompt_tokens, self._asked_at = True, prompt_tokens, perf_counter()

    def write(self, model: str) -> None:
        """Note that text or thinking has arrived."""
        if not self._has_text:
            self._has_text = True
            count_first_token(model, after_s=perf_counter() - self._asked_at)

    def used(self, text: str, *, asked: bool, estimated_input: int) -> tuple[TokenUsage, bool]:
        """Return what the attempt used as far as known, and whether that is an estimate.

        A provider counts the output at the end only; an answer that was cut off is counted by
        its text. One that never began costs nothing if the provider refused it.
        """
        if self.is_counted:
            return self.usage, self.is_estimated
        if self.has_started:
            written = max(self.usage.output_tokens, written_tokens(text))
            return self.usage.model_copy(update={"output_tokens": written}), True
        if not asked:
            return TokenUsage(), False
        return TokenUsage(input_tokens=estimated_input), True
