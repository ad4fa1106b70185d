"""Memory extraction: the activity that learns from a turn, and the start of its workflow."""

from datetime import timedelta
from typing import Final

import structlog
from temporalio import activity
from temporalio.client import Client
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities import names
from activities.heartbeats import heartbeats
from schema.ids import extraction_workflow_id
from schema.memory_extraction import ExtractionOutcome, ExtractMemoriesInput
from schema.names import (
    BACKGROUND_QUEUE,
    CHAT_ID_ATTRIBUTE,
    EXTRACT_MEMORIES,
    TASK_TIMEOUT,
    USER_ID_ATTRIBUTE,
)
from schema.turns import TurnReference
from services.memory_extraction.service import MemoryExtraction
from services.models.failures import ModelCallError

_log = structlog.get_logger(__name__)

_USER_ID: Final = SearchAttributeKey.for_keyword(USER_ID_ATTRIBUTE)
_CHAT_ID: Final = SearchAttributeKey.for_keyword(CHAT_ID_ATTRIBUTE)
_RPC_TIMEOUT: Final = timedelta(seconds=2)


class ExtractionActivities:
    """What the workflow `ExtractMemories` does outside itself."""

    def __init__(self, extraction: MemoryExtraction) -> None:
        self._extraction = extraction

    @activity.defn(name=names.EXTRACT_MEMORIES)
    async def extract_memories(self, asked: ExtractMemoriesInput) -> ExtractionOutcome:
        """Store what a turn suggests.

        Errors: ApplicationError `ModelFailed`, final once no attempt is left; DefectError; any
        other is retried.
        """
        if asked.gave_up:
            return await self._extraction.give_up(asked.turn)
        async with heartbeats():
            try:
                return await self._extraction.extract(asked.turn)
            except ModelCallError as error:
                _log.warning("extraction_failed", final=error.exhausted, reason=str(error))
                raise ApplicationError(
                    f"Model call failed: {error.kind.value}",
                    type=names.MODEL_FAILED,
                    non_retryable=error.exhausted,
                    next_retry_delay=None if error.exhausted else error.retry_after,
                ) from None


class ExtractionStart:
    """Starts the extraction of turns that were completed."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self, turn: TurnReference) -> None:
        """Start the workflow of a turn, unless it was before; no failure is the turn's problem."""
        try:
            await self._client.start_workflow(
                EXTRACT_MEMORIES,
                turn,
                id=extraction_workflow_id(turn.turn_id),
                task_queue=BACKGROUND_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                task_timeout=TASK_TIMEOUT,
                search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(_USER_ID, str(turn.user_id)),
                        SearchAttributePair(_CHAT_ID, str(turn.chat_id)),
                    ]
                ),
                static_summary=f"memories of turn {turn.turn_id}",
                static_details=(
                    f"User `{turn.user_id}`, chat `{turn.chat_id}`\n\n"
                    f"What it cost: `everturn admin turn {turn.turn_id}`"
                ),
                # The share of the user, as of their turns (workflows/child_workflows.py).
                priority=Priority(fairness_key=str(turn.user_id)),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return
        except RPCError as error:
            _log.warning("extraction_not_started", status=error.status.name)
