"""The activities of the workflow `Sweep`, and the check whether there is anything to sweep."""

import asyncio
from datetime import timedelta
from enum import Enum, auto
from typing import Final

import structlog
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus

from activities import names
from activities.turn_workflows import TurnWorkflows, workflow_status
from schema.ids import TurnId, ingestion_workflow_id, turn_workflow_id
from schema.ingestion import DocumentVersionReference, StrandedIngestions
from schema.sweeps import ErasureOutcome, FileSweepOutcome, SweepPart
from schema.tool_callbacks import DeliveryOutcome
from schema.turns import DecidedToolCallReference, StrandedTurns, TurnReference
from services.erasure import Erasure
from services.files.service import FileService
from services.knowledge.ingestion import StrandedIngestionSearch
from services.shielding import each_alone
from services.turns.approvals import ToolApprovals
from services.turns.stranded import ActiveTurn, StrandedTurnSearch, UnfinishedTurns
from services.workflow_tools.callbacks import CallbackDelivery

_log = structlog.get_logger(__name__)

_SETTLED: Final = timedelta(seconds=5)
"""Younger work is still being started by the process that accepted it."""
_DECISION_SETTLED: Final = timedelta(seconds=10)
"""Workflows usually receive a decision at once."""
_LONGEST_ERASURE_S: Final = 30.0
"""A long backlog of erasures is split between sweeps, so that turns don't wait for all of it."""


class _Need(Enum):
    """What a turn that holds its chat needs from the sweep."""

    START = auto()
    CLOSE = auto()
    CANCEL = auto()


class SweepActivities:
    """What the workflow `Sweep` does outside itself; `parts_due` says whether it is needed."""

    def __init__(
        self,
        client: Client,
        *,
        turns: StrandedTurnSearch,
        ingestions: StrandedIngestionSearch,
        erasure: Erasure,
        approvals: ToolApprovals,
        callbacks: CallbackDelivery,
        files: FileService,
    ) -> None:
        self._client = client
        self._workflows = TurnWorkflows(client)
        self._turns = turns
        self._ingestions = ingestions
        self._erasure = erasure
        self._approvals = approvals
        self._callbacks = callbacks
        self._files = files
        self._checked: TurnId | None = None

    async def parts_due(self) -> tuple[SweepPart, ...]:
        """Return the parts in which something waits; no activity, and it changes nothing.

        Errors: DatabaseUnavailableError or RPCError if some can't be checked and no other is due.
        """
        checks = {
            SweepPart.TURNS: self._is_turn_stranded,
            SweepPart.INGESTIONS: self._is_ingestion_stranded,
            SweepPart.ERASURES: self._is_erasure_pending,
            SweepPart.ANSWERS: self._is_answer_awaited,
            SweepPart.DECISIONS: self._is_decision_awaited,
            SweepPart.FILES: self._files.is_any_due,
        }
        due: list[SweepPart] = []
        failure: Exception | None = None
        for part, is_due in checks.items():
            try:
                due += [part] if await is_due() else []
            except Exception as error:  # noqa: BLE001 -- a part must not hold up others
                failure = error
                _log.warning("sweep_part_not_checked", part=part.value, exc_info=error)
        if failure is not None and not due:
            raise failure
        return tuple(due)

    async def unfinished_turns(self) -> UnfinishedTurns:
        """Return how many turns have not ended; no activity. Errors: DatabaseUnavailableError."""
        return await self._turns.unfinished()

    @activity.defn(name=names.FIND_STRANDED_TURNS)
    async def find_stranded_turns(self) -> StrandedTurns:
        """Return turns to start, and turns to close because their workflow is gone.

        What calls reserve that were never settled is released at once.
        """
        await self._turns.lose_dead_charges()
        to_start = list(await self._turns.activate_waiting(older_than=_SETTLED))
        to_close: list[TurnReference] = []

        async def sort(turn: ActiveTurn) -> None:
            activity.heartbeat()
            match await self._need_of(turn):
                case _Need.START:
                    to_start.append(turn.reference)
                case _Need.CLOSE:
                    to_close.append(turn.reference)
                case _Need.CANCEL:
                    # Temporal was unavailable when it was asked for; asking twice is harmless.
                    await self._workflows.cancel(turn.reference.turn_id)
                case None:
                    pass

        page = await self._turns.active(older_than=_SETTLED)
        await each_alone(page.turns, sort)
        while page.after is not None:
            page = await self._turns.active(older_than=_SETTLED, after=page.after)
            await each_alone(page.turns, sort)
        return StrandedTurns(to_start=tuple(to_start), to_close=tuple(to_close))

    @activity.defn(name=names.FIND_STRANDED_INGESTIONS)
    async def find_stranded_ingestions(self) -> StrandedIngestions:
        """Return versions that are not ingested and whose workflow does not run."""
        to_start: list[DocumentVersionReference] = []

        async def sort(version: DocumentVersionReference) -> None:
            activity.heartbeat()
            if not await self._is_ingested_now(version):
                to_start.append(version)

        await each_alone(await self._ingestions.unfinished(older_than=_SETTLED), sort)
        return StrandedIngestions(to_start=tuple(to_start))

    @activity.defn(name=names.ERASE_STREAMS)
    async def erase_streams(self) -> ErasureOutcome:
        """Cancel the workflows of deleted turns and erase their streams, for half a minute.

        Idempotency: a stream stays listed until its erasure is stored; erasing it again is
        harmless.
        """
        erased = 0
        clock = asyncio.get_running_loop().time
        until = clock() + _LONGEST_ERASURE_S
        while turn_ids := await self._erasure.pending():
            await each_alone(turn_ids, self._cancel)
            if not await self._erasure.erase(turn_ids) or clock() > until:
                return ErasureOutcome(erased=erased, is_done=False)
            erased += len(turn_ids)
        return ErasureOutcome(erased=erased, is_done=True)

    @activity.defn(name=names.TELL_DECISIONS)
    async def deliver_decisions(self) -> DeliveryOutcome:
        """Signal stored decisions to the turns that still wait for them.

        Idempotency: a turn that knows the decision ignores the signal.
        """

        async def signal(decided: DecidedToolCallReference) -> bool:
            activity.heartbeat()
            return await self._workflows.signal_decision(decided.turn_id, decided.call)

        undelivered = await self._approvals.undelivered(older_than=_DECISION_SETTLED)
        return DeliveryOutcome(delivered=sum(await each_alone(undelivered, signal)))

    @activity.defn(name=names.SWEEP_FILES)
    async def sweep_files(self) -> FileSweepOutcome:
        """Delete files that no message has named in time, and objects that no file has.

        Idempotency: an object stays listed until its deletion is stored; deleting it again is
        harmless.
        """
        return FileSweepOutcome(deleted=await self._files.sweep())

    async def _cancel(self, turn_id: TurnId) -> None:
        activity.heartbeat()
        await self._workflows.cancel(turn_id)

    async def _is_turn_stranded(self) -> bool:
        if await self._turns.is_any_waiting(older_than=_SETTLED):
            return True
        if await self._turns.is_any_charge_dead():
            return True
        # One page, and the next one at the next check: thousands may wait for approvals.
        page = await self._turns.active(older_than=_SETTLED, after=self._checked)
        self._checked = page.after
        needs = await each_alone(page.turns, self._need_of)
        return any(need is not None for need in needs)

    async def _is_ingestion_stranded(self) -> bool:
        unfinished = await self._ingestions.unfinished(older_than=_SETTLED)
        return not all(await each_alone(unfinished, self._is_ingested_now))

    async def _is_erasure_pending(self) -> bool:
        return bool(await self._erasure.pending(limit=1))

    async def _is_answer_awaited(self) -> bool:
        answered = await self._callbacks.answered_calls()
        return any(await each_alone(answered, self._workflows.awaits_callback))

    async def _is_decision_awaited(self) -> bool:
        return bool(await self._approvals.undelivered(older_than=_DECISION_SETTLED))

    async def _need_of(self, turn: ActiveTurn) -> _Need | None:
        status = await workflow_status(self._client, turn_workflow_id(turn.reference.turn_id))
        if status is None and not turn.has_begun:
            return _Need.START
        if status is not WorkflowExecutionStatus.RUNNING:
            return _Need.CLOSE
        return _Need.CANCEL if turn.is_to_stop else None

    async def _is_ingested_now(self, version: DocumentVersionReference) -> bool:
        workflow_id = ingestion_workflow_id(version.document_id, version.number)
        status = await workflow_status(self._client, workflow_id)
        return status is WorkflowExecutionStatus.RUNNING
