"""Owns starting and stopping the workflows of turns from HTTP requests.

Temporal being away is no error here: the turn is stored, and the sweep starts it later.
"""

import asyncio
from collections.abc import Awaitable, Sequence

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from api.temporal_absence import patience, why_away
from schema.ids import TurnId, turn_workflow_id
from schema.names import TASK_TIMEOUT, TURNS_QUEUE
from schema.turns import TurnReference
from services.turns.acceptance import Accepted
from workflows.chat_turn import ChatTurn
from workflows.search_attributes import turn_attributes

_log = structlog.get_logger(__name__)


class TurnStarter:
    """Starts and stops turns. With `eager`, a worker in this process takes the first task."""

    def __init__(self, client: Client, *, eager: bool) -> None:
        self._client = client
        self._eager = eager
        self._underway: set[asyncio.Future[bool]] = set()

    def dispatch(self, accepted: Accepted) -> Awaitable[bool]:
        """Do to workflows what an accepted message asks for, whether or not anyone waits for it.

        The result says whether the turn is in Temporal's hands, as opposed to the sweep's.
        """
        task = asyncio.ensure_future(self._dispatch(accepted))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)
        return task

    async def _dispatch(self, accepted: Accepted) -> bool:
        if accepted.interrupts is not None:
            await self.cancel(accepted.interrupts)
        if accepted.starts_now:
            return await self.start(accepted.reference)
        return True

    async def start(self, turn: TurnReference) -> bool:
        """Start the turn's workflow; False where Temporal is away and the sweep will do it.

        Idempotency: a workflow that was started before stays the only one.
        """
        try:
            async with patience():
                await self._client.start_workflow(
                    ChatTurn.run,
                    turn,
                    id=turn_workflow_id(turn.turn_id),
                    task_queue=TURNS_QUEUE,
                    task_timeout=TASK_TIMEOUT,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    search_attributes=turn_attributes(turn),
                    request_eager_start=self._eager,
                )
        except WorkflowAlreadyStartedError:
            return True
        except (RPCError, RuntimeError, TimeoutError) as error:
            cause = why_away(error)
            _log.warning("turn_start_postponed", turn_id=str(turn.turn_id), cause=cause)
            return False
        return True

    async def cancel(self, turn_id: TurnId) -> bool:
        """Ask the turn's workflow to stop; False where there is none, or Temporal is away."""
        handle = self._client.get_workflow_handle(turn_workflow_id(turn_id))
        try:
            async with patience():
                await handle.cancel()
        except (RPCError, RuntimeError, TimeoutError) as error:
            cause = why_away(error)
            if cause != RPCStatusCode.NOT_FOUND.name:
                _log.warning("turn_cancel_postponed", turn_id=str(turn_id), cause=cause)
            return False
        return True

    async def cancel_all(self, turn_ids: Sequence[TurnId]) -> None:
        """Ask the workflows of deleted turns to stop."""
        await asyncio.gather(*map(self.cancel, turn_ids))

    async def is_reachable(self) -> bool:
        """Say whether Temporal answers."""
        try:
            async with patience():
                return await self._client.service_client.check_health()
        except (RPCError, RuntimeError, TimeoutError) as error:
            why_away(error)
            return False
