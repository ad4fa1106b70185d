"""Owns ending a turn: its message, its cost, its last events, and which turn comes next."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor, acting_user
from schema.chats import MessageRole
from schema.errors import ErrorCode
from schema.events import DeltaEvent, EventData, StepEvent
from schema.ids import ChatId, TurnId, new_id
from schema.tables import ChatRow, MessageRow, StepRow, ToolCallRow, TurnRow
from schema.tables.columns import utc_now
from schema.turns import (
    FinishTurnInput,
    FinishTurnOutput,
    StepStatus,
    ToolCallStatus,
    TurnOutcome,
    TurnReference,
    TurnStatus,
)
from schema.usage import TokenUsage
from services.database import Database
from services.events.snapshots import ending_events
from services.events.writer import EventWriter
from services.ledger import Ledger
from services.turns.rows import reference_from_row, usage_from_row

UNFINISHED: Final = (TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.AWAITING_APPROVAL)
_UNENDED_CALL: Final = "The turn ended before this call did."

_SENTENCES: Final = {
    ErrorCode.PAYLOAD_TOO_LARGE: "The message is too large for the model.",
    ErrorCode.MAX_STEPS_EXCEEDED: (
        "The model went on calling tools until the limit of steps was reached."
    ),
    ErrorCode.MODEL_UNAVAILABLE: "The model can't be reached now. Try again later.",
    ErrorCode.SERVICE_UNAVAILABLE: "The turn was ended by an operator or by an outage.",
    ErrorCode.INTERNAL: "Something went wrong here; it has been logged.",
}


class TurnEnding:
    """Ends turns."""

    def __init__(self, database: Database, events: EventWriter, ledger: Ledger) -> None:
        self._database = database
        self._events = events
        self._ledger = ledger

    async def finish(self, ending: FinishTurnInput) -> FinishTurnOutput:
        """End the turn; return how it ended, and the turn that holds the chat from now on.

        Idempotency: a turn that has ended stays as it is; its last events are told again where
        Redis does not have them.
        Errors: DatabaseUnavailableError.
        """
        turn_id = ending.turn.turn_id
        async with self._database.transaction(acting_user(ending.turn.user_id)) as session:
            await lock_chat(session, ending.turn.chat_id)
            turn = await session.get(TurnRow, turn_id)
            if turn is None:
                return FinishTurnOutput(outcome=_GONE)
            if ending.only_if_queued and turn.status != TurnStatus.QUEUED:
                return FinishTurnOutput(outcome=_outcome(turn, 0))
            steps = await _steps(session, turn_id)
            corrections: list[EventData] = []
            if not TurnStatus(turn.status).is_final:
                corrections = await self._end(session, turn, steps, ending)
            answer = await _answer(session, turn)
            following = await activate_next(session, ending.turn.chat_id)
        await self._events.close(turn_id, [*corrections, *ending_events(turn, answer)])
        return FinishTurnOutput(outcome=_outcome(turn, len(steps)), following=following)

    async def tell_dropped(self, actor: Actor, turn_id: TurnId) -> None:
        """Tell the end of a turn that was cancelled before it ever ran."""
        async with self._database.transaction(actor) as session:
            turn = await session.get(TurnRow, turn_id)
        if turn is not None:
            await self._events.close(turn_id, ending_events(turn, None))

    async def _end(
        self,
        session: AsyncSession,
        turn: TurnRow,
        steps: Sequence[StepRow],
        ending: FinishTurnInput,
    ) -> list[EventData]:
        corrections = _give_up_running(steps)
        if any(block["type"] == "tool_use" for step in steps for block in step.blocks):
            await _give_up_calls(session, turn.id)
        spend = await self._ledger.total(session, TurnId(turn.id))
        text = "".join(step.text for step in steps)
        if text or ending.status is TurnStatus.COMPLETED:
            message = _message(turn, text, ending.status)
            turn.assistant_message_id = message.id
            session.add(message)
        turn.status = ending.status
        turn.active = False
        turn.error_code = ending.error_code
        if ending.error_code is not None:
            turn.error_message = ending.failure or _SENTENCES[ending.error_code]
        for name, count in spend.usage.model_dump().items():
            setattr(turn, name, count)
        turn.cost_usd = spend.cost_usd
        turn.finished_at = utc_now()
        await session.flush()
        return corrections


_GONE: Final = TurnOutcome(
    status=TurnStatus.CANCELLED, steps=0, usage=TokenUsage(), cost_usd=Decimal(0)
)
"""The outcome of a turn that was deleted while it ran."""


def _outcome(turn: TurnRow, steps: int) -> TurnOutcome:
    return TurnOutcome(
        status=TurnStatus(turn.status),
        error_code=None if turn.error_code is None else ErrorCode(turn.error_code),
        steps=steps,
        usage=usage_from_row(turn),
        cost_usd=turn.cost_usd,
    )


async def lock_chat(session: AsyncSession, chat_id: ChatId) -> None:
    """Take the chat's row, so that this is in order with the messages that come in."""
    changed = update(ChatRow).where(col(ChatRow.id) == chat_id).values(updated_at=func.now())
    await session.exec(changed)


async def _steps(session: AsyncSession, turn_id: TurnId) -> Sequence[StepRow]:
    query = select(StepRow).where(col(StepRow.turn_id) == turn_id).order_by(col(StepRow.step))
    return (await session.exec(query)).all()


async def _answer(session: AsyncSession, turn: TurnRow) -> MessageRow | None:
    if turn.assistant_message_id is None:
        return None
    return await session.get_one(MessageRow, turn.assistant_message_id)


def _give_up_running(steps: Sequence[StepRow]) -> list[EventData]:
    """Settle the text of steps whose attempt died unheard.

    Clients may have seen more of it than was kept. A new attempt that says just what is kept
    clears the rest, and shuts the dead one out should it wake.
    """
    corrections: list[EventData] = []
    for step in steps:
        if step.status != StepStatus.RUNNING:
            continue
        step.status = StepStatus.CANCELLED
        step.attempt += 1
        corrections.append(StepEvent(step=step.step, attempt=step.attempt, model=step.model))
        if step.text:
            corrections.append(DeltaEvent(step=step.step, attempt=step.attempt, text=step.text))
    return corrections


async def _give_up_calls(session: AsyncSession, turn_id: object) -> None:
    ended = (ToolCallStatus.COMPLETED, ToolCallStatus.FAILED, ToolCallStatus.DENIED)
    open_calls = update(ToolCallRow).where(
        col(ToolCallRow.turn_id) == turn_id, col(ToolCallRow.status).not_in(ended)
    )
    await session.exec(
        open_calls.values(status=ToolCallStatus.FAILED, output=_UNENDED_CALL, finished_at=utc_now())
    )


def _message(turn: TurnRow, text: str, status: TurnStatus) -> MessageRow:
    return MessageRow(
        id=new_id(),
        chat_id=turn.chat_id,
        user_id=turn.user_id,
        turn_id=turn.id,
        role=MessageRole.ASSISTANT,
        content=text,
        status=status,
    )


async def activate_next(session: AsyncSession, chat_id: ChatId) -> TurnReference | None:
    """Give the chat to the oldest turn that waits, unless a running one holds it.

    A turn that holds the chat but never started is returned too: starting it twice is harmless.
    """
    query = (
        select(TurnRow)
        .where(
            col(TurnRow.chat_id) == chat_id,
            col(TurnRow.status).in_(UNFINISHED),
        )
        .order_by(col(TurnRow.active).desc(), col(TurnRow.id))
        .limit(1)
    )
    following = (await session.exec(query)).first()
    if following is None or following.status != TurnStatus.QUEUED:
        return None
    following.active = True
    await session.flush()
    return reference_from_row(following)
