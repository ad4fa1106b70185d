"""Work after a turn: the activities that do it, and the start of their workflow."""

from collections.abc import Awaitable, Callable
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
from schema.after_turn import AfterTurnInput, WorkInput, WorkOutcome
from schema.ids import after_turn_workflow_id
from schema.names import (
    AFTER_TURN,
    BACKGROUND_QUEUE,
    CHAT_ID_ATTRIBUTE,
    TASK_TIMEOUT,
    USER_ID_ATTRIBUTE,
    Work,
)
from schema.turns import TurnReference
from services.compaction import Compaction
from services.memory_extraction.service import MemoryExtraction
from services.models.failures import ModelCallError
from services.titles import ChatTitles

_log = structlog.get_logger(__name__)

_USER_ID: Final = SearchAttributeKey.for_keyword(USER_ID_ATTRIBUTE)
_CHAT_ID: Final = SearchAttributeKey.for_keyword(CHAT_ID_ATTRIBUTE)
_RPC_TIMEOUT: Final = timedelta(seconds=2)


class AfterTurnActivities:
    """What the workflow `AfterTurn` does outside itself.

    Each activity is one work. Errors of all: ApplicationError `ModelFailed`, final once no attempt
    is left; DefectError; any other is retried.
    """

    def __init__(
        self, extraction: MemoryExtraction, titles: ChatTitles, compaction: Compaction
    ) -> None:
        self._extraction = extraction
        self._titles = titles
        self._compaction = compaction

    @activity.defn(name=Work.EXTRACT_MEMORIES)
    async def extract_memories(self, asked: WorkInput) -> WorkOutcome:
        """Store what a turn suggests to remember."""
        return await _do(asked, self._extraction.extract, give_up=self._extraction.give_up)

    @activity.defn(name=Work.TITLE_CHAT)
    async def title_chat(self, asked: WorkInput) -> WorkOutcome:
        """Give the chat a title by its first answered question, unless it has one."""
        return await _do(asked, self._titles.title, give_up=self._titles.give_up)

    @activity.defn(name=Work.COMPACT_CHAT)
    async def compact_chat(self, asked: WorkInput) -> WorkOutcome:
        """Summarise the older part of the turn's branch."""
        return await _do(asked, self._compaction.compact, give_up=self._compaction.give_up)


async def _do(
    asked: WorkInput,
    work: Callable[[TurnReference], Awaitable[WorkOutcome]],
    *,
    give_up: Callable[[TurnReference], Awaitable[WorkOutcome]],
) -> WorkOutcome:
    if asked.gave_up:
        return await give_up(asked.turn)
    async with heartbeats():
        try:
            return await work(asked.turn)
        except ModelCallError as error:
            _log.warning("background_call_failed", final=error.exhausted, reason=str(error))
            raise ApplicationError(
                f"Model call failed: {error.kind.value}",
                type=names.MODEL_FAILED,
                non_retryable=error.exhausted,
                next_retry_delay=None if error.exhausted else error.retry_after,
            ) from None


class AfterTurnStart:
    """Starts what is due after turns that were completed."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self, turn: TurnReference, works: tuple[Work, ...]) -> None:
        """Start a turn's works, unless they were before; no failure is the turn's problem."""
        try:
            await self._client.start_workflow(
                AFTER_TURN,
                AfterTurnInput(turn=turn, works=works),
                id=after_turn_workflow_id(turn.turn_id),
                task_queue=BACKGROUND_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                task_timeout=TASK_TIMEOUT,
                search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(_USER_ID, str(turn.user_id)),
                        SearchAttributePair(_CHAT_ID, str(turn.chat_id)),
                    ]
                ),
                static_summary=" · ".join(work.replace("_", " ") for work in works),
                static_details=(
                    f"User `{turn.user_id}`, chat `{turn.chat_id}`, turn `{turn.turn_id}`\n\n"
                    f"What it cost: `everturn admin turn {turn.turn_id}`"
                ),
                # The share of the user, as of their turns (workflows/child_workflows.py).
                priority=Priority(fairness_key=str(turn.user_id)),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return
        except RPCError as error:
            _log.warning("works_not_started", status=error.status.name)
