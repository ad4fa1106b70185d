"""Owns starting and stopping the workflows of turns from HTTP requests.

Temporal being away is no error here: the turn is stored, and the sweep starts it later.
"""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Final

import structlog
from temporalio.client import Client
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from schema.ids import TurnId, turn_workflow_id
from schema.names import (
    CHAT_ID_ATTRIBUTE,
    MODEL_ATTRIBUTE,
    TASK_TIMEOUT,
    TURNS_QUEUE,
    USER_ID_ATTRIBUTE,
)
from schema.turns import TurnReference
from services.turns.acceptance import Accepted
from workflows.chat_turn import ChatTurn

_log = structlog.get_logger(__name__)

_PATIENCE: Final = timedelta(seconds=3)
_USER_ID: Final = SearchAttributeKey.for_keyword(USER_ID_ATTRIBUTE)
_CHAT_ID: Final = SearchAttributeKey.for_keyword(CHAT_ID_ATTRIBUTE)
_MODEL: Final = SearchAttributeKey.for_keyword(MODEL_ATTRIBUTE)


class TurnStarter:
    """Starts and stops turns. With `eager`, a worker in this process takes the first task."""

    def __init__(self, client: Client, *, eager: bool) -> None:
        self._client = client
        self._eager = eager
        self._underway: set[asyncio.Task[bool]] = set()

    def dispatch(self, accepted: Accepted) -> None:
        """Do to workflows what an accepted message asks for, while its client is answered."""
        if accepted.starts_now:
            self._soon(self.start(accepted.reference, model=accepted.turn.model))
        if accepted.interrupts is not None:
            self._soon(self.cancel(accepted.interrupts))

    def _soon(self, work: Coroutine[None, None, bool]) -> None:
        task = asyncio.create_task(work)
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def start(self, turn: TurnReference, *, model: str) -> bool:
        """Start the turn's workflow; False where Temporal is away and the sweep will do it.

        Idempotency: a workflow that was started before stays the only one.
        """
        try:
            await self._client.start_workflow(
                ChatTurn.run,
                turn,
                id=turn_workflow_id(turn.turn_id),
                task_queue=TURNS_QUEUE,
                task_timeout=TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(_USER_ID, str(turn.user_id)),
                        SearchAttributePair(_CHAT_ID, str(turn.chat_id)),
                        SearchAttributePair(_MODEL, model),
                    ]
                ),
                rpc_timeout=_PATIENCE,
                request_eager_start=self._eager,
            )
        except WorkflowAlreadyStartedError:
            return True
        except RPCError as error:
            _log.warning(
                "turn_start_postponed", turn_id=str(turn.turn_id), status=error.status.name
            )
            return False
        return True

    async def cancel(self, turn_id: TurnId) -> bool:
        """Ask the turn's workflow to stop; False where there is none, or Temporal is away."""
        handle = self._client.get_workflow_handle(turn_workflow_id(turn_id))
        try:
            await handle.cancel(rpc_timeout=_PATIENCE)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                _log.warning(
                    "turn_cancel_postponed", turn_id=str(turn_id), status=error.status.name
                )
            return False
        return True

    async def is_reachable(self) -> bool:
        """Say whether Temporal answers."""
        try:
            return await self._client.service_client.check_health(timeout=_PATIENCE)
        except RPCError:
            return False
