"""An attempt at a step: what it is to send, how far it has come, and what it has used by then."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import structlog

from schema.contexts import OfferedTool, PromptLayers
from schema.events import StepEvent
from schema.ids import FileId, TurnId, UserId
from schema.usage import TokenUsage
from services.database import DatabaseUnavailableError
from services.events.deltas import DeltaBuffer
from services.metrics import count_first_token
from services.prompts.conversation import JoinedMessage, PromptMaterial
from services.prompts.tokens import written_tokens
from services.turns.call_settings import CallSettings

_log = structlog.get_logger(__name__)

_FIRST_CHECKPOINT_S: Final = 0.1
_CHECKPOINT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """The key of an attempt in a step's row and in the ledger."""

    user_id: UserId
    turn_id: TurnId
    step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """An attempt that now holds its step; a turn of an earlier release has no `layers`.

    Units: `estimated_input` is the estimate of the prompt as it is to be sent, by what the provider
    counted last in the chat. `is_cut` says that the model's window doesn't hold all of it.
    `is_limited` is false where no budget applies. `settings` are what was reserved for.
    `replaced` are earlier steps whose answers don't fit the turn's schema: this one corrects them.
    `lost_files` are attached, but their contents are gone.
    """

    key: AttemptKey
    model: str
    estimated_input: int
    layers: PromptLayers | None
    material: PromptMaterial
    settings: CallSettings
    is_cut: bool = False
    is_limited: bool = False
    replaced: tuple[StepEvent, ...] = ()
    lost_files: frozenset[FileId] = frozenset()
    begun_at: float = field(default_factory=perf_counter, compare=False)

    @property
    def max_tokens(self) -> int:
        """The longest answer, its thinking included: what was reserved for it."""
        return self.settings.max_tokens

    @property
    def offered(self) -> tuple[OfferedTool, ...]:
        """The tools that the model may call."""
        return () if self.layers is None else self.layers.offered

    @property
    def start(self) -> StepEvent:
        """The event that announces the attempt to clients."""
        return StepEvent(step=self.key.step, attempt=self.key.attempt, model=self.model)

    @property
    def joined(self) -> list[JoinedMessage]:
        """The messages that joined the turn before this step, with this attempt or an earlier."""
        return [message for message in self.material.joined if message.step == self.key.step]


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


@asynccontextmanager
async def checkpoints(
    store: Callable[..., Awaitable[None]],
    attempt: NewAttempt,
    text: DeltaBuffer,
    progress: AttemptProgress,
) -> AsyncIterator[None]:
    """Store the answer so far, and its usage, while it is being streamed."""
    keeper = asyncio.create_task(_keep_checkpoints(store, attempt, text, progress))
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def _keep_checkpoints(
    store: Callable[..., Awaitable[None]],
    attempt: NewAttempt,
    text: DeltaBuffer,
    progress: AttemptProgress,
) -> None:
    pause_s = _FIRST_CHECKPOINT_S
    while True:
        await asyncio.sleep(pause_s)
        if not progress.has_started:
            continue
        pause_s = _CHECKPOINT_S
        usage, _ = progress.used(text.written, asked=True, estimated_input=attempt.estimated_input)
        try:
            await store(attempt, answer=text.text, thinking=text.thinking, usage=usage)
        except DatabaseUnavailableError:
            _log.warning("checkpoint_failed", turn_id=str(attempt.key.turn_id))
