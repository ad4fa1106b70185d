"""Attempts are fenced: superseded ones write nothing, stored results are not requested again."""

from uuid import UUID

import pytest

from schema.actors import acting_user
from schema.chats import SendMessageRequest
from schema.events import DeltaEvent, StepEvent, TurnEvent
from schema.ids import ChatId, MessageId, TurnId, UserId, new_id
from schema.result import Ok
from schema.turns import CallModelInput, FinishTurnInput, TurnReference, TurnStatus
from schema.usage import TokenUsage
from services.events.writer import Appended, NotAppended, OvertakenError, stream_key
from services.turns.attempts import NewAttempt
from services.turns.requested_calls import StoredAnswer
from services.turns.steps import AttemptOvertakenError, Claim, Steps, TurnStoppedError
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack

MODEL = "claude-haiku-5-5"


def text_of(attempt: int, text: str) -> DeltaEvent:
    return DeltaEvent(step=1, attempt=attempt, text=text)


async def append(stack: Stack, turn_id: TurnId, attempt: int, text: str) -> Appended | NotAppended:
    return await stack.foundation.events.append_attempt(
        turn_id, [text_of(attempt, text)], step=1, attempt=attempt
    )


async def length(stack: Stack, turn_id: TurnId) -> int:
    return int(await stack.foundation.redis.xlen(stream_key(turn_id)))


async def running_turn(user: ApiUser, stack: Stack) -> TurnReference:
    """Store a turn and prepare it, with no workflow behind it."""
    chat = await user.create_chat()
    accepted = await stack.services.turns.acceptance.accept(
        acting_user(UserId(UUID(user.id))),
        ChatId(UUID(chat)),
        SendMessageRequest(content=unique()),
        key=None,
    )
    assert isinstance(accepted, Ok)
    await stack.activities.turns._preparation.prepare(accepted.value.reference)
    return accepted.value.reference


def steps_of(stack: Stack) -> Steps:
    foundation = stack.foundation
    return Steps(foundation.database, foundation.pricing, foundation.windows, budget_tokens=100_000)


async def finish(stack: Stack, turn: TurnReference) -> None:
    ending = FinishTurnInput(turn=turn, status=TurnStatus.CANCELLED)
    await stack.foundation.ending.finish(ending)


async def test_an_append_of_an_older_attempt_is_refused(stack: Stack) -> None:
    turn_id = TurnId(new_id())
    await append(stack, turn_id, 2, "new")

    with pytest.raises(OvertakenError):
        await append(stack, turn_id, 1, "old")

    assert await length(stack, turn_id) == 1
    assert isinstance(await append(stack, turn_id, 2, "newer"), Appended)


async def test_attempts_of_different_steps_do_not_shut_each_other_out(stack: Stack) -> None:
    turn_id = TurnId(new_id())
    await append(stack, turn_id, 5, "step 1")

    start = StepEvent(step=2, attempt=1, model=MODEL)
    appended = await stack.foundation.events.append_attempt(turn_id, [start], step=2, attempt=1)

    assert isinstance(appended, Appended)


async def test_nothing_is_appended_after_the_end_of_a_stream(stack: Stack) -> None:
    turn_id, events = TurnId(new_id()), stack.foundation.events
    turn = TurnEvent(
        turn_id=turn_id,
        chat_id=ChatId(new_id()),
        status=TurnStatus.COMPLETED,
        user_message_id=MessageId(new_id()),
    )
    await events.close(turn_id, [turn])

    with pytest.raises(OvertakenError):
        await append(stack, turn_id, 9, "late")

    assert await events.close(turn_id, [turn]) is NotAppended.PRESENT
    assert await length(stack, turn_id) == 1


async def test_an_attempt_notices_that_the_stream_has_lost_its_newest_event(stack: Stack) -> None:
    turn_id, events = TurnId(new_id()), stack.foundation.events
    first = await append(stack, turn_id, 1, "one")
    second = await append(stack, turn_id, 1, "two")
    assert isinstance(first, Appended)
    assert isinstance(second, Appended)
    await stack.foundation.redis.xdel(stream_key(turn_id), second.last_id)

    behind = await events.append_attempt(
        turn_id, [text_of(1, "three")], step=1, attempt=1, behind=second.last_id
    )

    assert behind is NotAppended.UNKNOWN
    assert await length(stack, turn_id) == 1


async def test_a_workflow_of_a_turn_that_has_ended_asks_no_model_and_reserves_nothing(
    user: ApiUser, stack: Stack
) -> None:
    turn, steps = await running_turn(user, stack), steps_of(stack)
    await finish(stack, turn)

    with pytest.raises(TurnStoppedError):
        await steps.begin(
            CallModelInput(turn=turn, step=1, model=MODEL),
            Claim("run from a backup", "activity", 1),
            max_tokens=4_096,
        )

    assert await stack.inspection.charges(str(turn.turn_id)) == []
    assert (await stack.inspection.turn(str(turn.turn_id)))["status"] == "cancelled"


async def test_an_older_execution_cannot_take_a_step_back(user: ApiUser, stack: Stack) -> None:
    turn, steps = await running_turn(user, stack), steps_of(stack)
    call = CallModelInput(turn=turn, step=1, model=MODEL)
    newer = await steps.begin(call, Claim("run", "activity", 2), max_tokens=4_096)

    for claim in (Claim("run", "activity", 1), Claim("run", "activity", 2)):
        with pytest.raises(AttemptOvertakenError):
            await steps.begin(call, claim, max_tokens=4_096)

    assert isinstance(newer, NewAttempt)
    assert newer.key.attempt == 1
    await finish(stack, turn)


async def test_a_superseded_attempt_can_neither_store_nor_complete_its_answer(
    user: ApiUser, stack: Stack
) -> None:
    turn, steps = await running_turn(user, stack), steps_of(stack)
    call = CallModelInput(turn=turn, step=1, model=MODEL)
    older = await steps.begin(call, Claim("run", "activity", 1), max_tokens=4_096)
    newer = await steps.begin(call, Claim("run", "activity", 2), max_tokens=4_096)
    assert isinstance(older, NewAttempt)
    assert isinstance(newer, NewAttempt)

    await steps.checkpoint(older, answer="old", usage=TokenUsage(output_tokens=1))
    with pytest.raises(AttemptOvertakenError):
        await steps.complete(
            older,
            answer="old",
            blocks=[],
            stop_reason="end_turn",
            tool_requests=[],
            usage=TokenUsage(),
        )

    (row,) = await stack.inspection.rows(
        "SELECT text, attempt, status FROM steps WHERE turn_id = $1", turn.turn_id
    )
    assert row == {"text": "", "attempt": 2, "status": "running"}
    charges = await stack.inspection.charges(str(turn.turn_id))
    assert [charge["status"] for charge in charges] == ["lost", "open"]
    await finish(stack, turn)


async def test_a_finished_step_is_not_requested_again(user: ApiUser, stack: Stack) -> None:
    turn, steps = await running_turn(user, stack), steps_of(stack)
    call = CallModelInput(turn=turn, step=1, model=MODEL)
    attempt = await steps.begin(call, Claim("run", "activity", 1), max_tokens=4_096)
    assert isinstance(attempt, NewAttempt)
    usage = TokenUsage(input_tokens=100, output_tokens=5)
    completed = await steps.complete(
        attempt,
        answer="Done.",
        blocks=[{"type": "text", "text": "Done."}],
        stop_reason="end_turn",
        tool_requests=[],
        usage=usage,
    )
    asked = len(stack.model.requests)

    stored = await steps.begin(call, Claim("run", "activity", 2), max_tokens=4_096)
    output = await stack.activities.turns._model_calls.run(call, Claim("other", "activity", 1))

    assert stored == StoredAnswer(
        attempt=1, stop_reason="end_turn", tool_calls=(), usage=usage, cost_usd=completed.cost_usd
    )
    returned = (output.stop_reason, output.usage, output.cost_usd)
    assert returned == ("end_turn", usage, completed.cost_usd)
    assert len(stack.model.requests) == asked
    assert len(await stack.inspection.charges(str(turn.turn_id))) == 1
    await finish(stack, turn)
