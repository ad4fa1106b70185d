"""Owns what one call of the stronger model has used so far, and keeping that in the ledger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Final

import structlog

from schema.usage import TokenUsage
from services.database import DatabaseUnavailableError
from services.models.gateway import (
    AnswerEnded,
    AnswerStarted,
    FailureKind,
    ModelCallError,
    ModelEvent,
    TextArrived,
    ThoughtArrived,
)
from services.models.pricing import Pricing
from services.prompts.tokens import estimated_output
from services.shielding import until_stored
from services.tools.definition import ToolExecution, ToolProgress
from services.tools.ledger import ChargeStatus, ToolLedger

_log = structlog.get_logger(__name__)

_CHECKPOINT_S: Final = 1.0


class Meter:
    """Counts one attempt at a call; `cost_usd` is known once it is settled.

    Units: `input_tokens` is the estimate before the call is made.
    """

    def __init__(
        self,
        ledger: ToolLedger,
        pricing: Pricing,
        execution: ToolExecution,
        *,
        model: str,
        input_tokens: int,
    ) -> None:
        self._ledger = ledger
        self._pricing = pricing
        self._execution = execution
        self._model = model
        self._input_tokens = input_tokens
        self._started: TokenUsage | None = None
        self._ended: TokenUsage | None = None
        self._chars = 0
        self._activity = "thinking"
        self.cost_usd: Decimal | None = None

    async def open(self, *, estimate_usd: Decimal) -> None:
        """Open the ledger's row, before anything is asked. Errors: DatabaseUnavailableError."""
        await self._ledger.open(
            self._execution,
            model=self._model,
            estimate_usd=estimate_usd,
            input_tokens=self._input_tokens,
        )

    def count(self, event: ModelEvent) -> None:
        """Take in what the model does."""
        match event:
            case AnswerStarted():
                self._started = event.usage
            case ThoughtArrived():
                self._chars += event.chars
            case TextArrived():
                self._chars += len(event.text)
                self._activity = "answering"
            case AnswerEnded():
                self._ended = event.usage

    @asynccontextmanager
    async def checkpoints(self) -> AsyncIterator[None]:
        """Keep what is used so far in the ledger, and tell of the progress, meanwhile."""
        keeper = asyncio.create_task(self._keep_checkpoints())
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def settle(self, failure: BaseException | None) -> None:
        """Record what the attempt came to, however long that takes."""
        usage, estimated = self._used(failure)
        cost_usd = self.cost_usd = self._pricing.cost(self._model, usage)
        await until_stored(
            lambda: self._ledger.settle(
                self._execution,
                usage=usage,
                cost_usd=cost_usd,
                status=_status_after(failure),
                estimated=estimated,
            )
        )

    def _used(self, failure: BaseException | None) -> tuple[TokenUsage, bool]:
        """Return what was used as far as known, and whether that is an estimate.

        A provider counts the output at the end only; what was cut off is counted by its length.
        One that never began was not paid for if the provider said no.
        """
        if self._ended is not None:
            return self._ended, False
        if self._started is not None:
            written = max(self._started.output_tokens, estimated_output(self._chars))
            return self._started.model_copy(update={"output_tokens": written}), True
        if isinstance(failure, ModelCallError) and failure.kind is not FailureKind.BROKEN_STREAM:
            return TokenUsage(), False
        return TokenUsage(input_tokens=self._input_tokens), True

    async def _keep_checkpoints(self) -> None:
        while True:
            await asyncio.sleep(_CHECKPOINT_S)
            if self._started is None:
                continue
            usage, _ = self._used(None)
            self._execution.report(
                ToolProgress(progress=float(usage.output_tokens), message=self._activity)
            )
            try:
                cost_usd = self._pricing.cost(self._model, usage)
                await self._ledger.checkpoint(self._execution, usage=usage, cost_usd=cost_usd)
            except DatabaseUnavailableError:
                _log.warning("checkpoint_failed", turn_id=str(self._execution.turn_id))


def _status_after(failure: BaseException | None) -> ChargeStatus:
    if failure is None:
        return ChargeStatus.SETTLED
    if isinstance(failure, asyncio.CancelledError):
        return ChargeStatus.CANCELLED
    return ChargeStatus.FAILED
