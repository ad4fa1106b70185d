"""What nobody expects, in a model's answers and in our own rows: one turn ends, or goes on."""

from typing import Final

import pytest

from tests.fakes.scripted_model.raw_answers import RawAnswer, text, tool_use, whole
from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.bystanders import Others
from tests.running_everturn.client import Client, names, rebuild
from tests.running_everturn.stack import ScriptedStack

_MAX_STEPS: Final = 10


async def test_a_turn_whose_stored_context_cant_be_read_fails_once_and_the_chat_goes_on(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    first, second = "before the unreadable context", "with an unreadable context"
    everturn.model.add(Script(match=first, text="First.", hold="context"))
    chat = await client.new_chat()

    async with (
        others("a stored context that can't be read"),
        client.ask(first, chat_id=chat) as before,
        client.ask(second, chat_id=chat, if_busy="enqueue") as stream,
    ):
        await everturn.model.wait_for_request(match=first)
        await everturn.query(
            "INSERT INTO turn_contexts (turn_id, user_id, layers, sources) "
            "SELECT id, user_id, '{\"system\": 1}', '[]' FROM turns WHERE id = $1::text::uuid",
            stream.turn_id,
        )
        everturn.model.release("context")
        assert rebuild(await before.to_end()) == "First."
        events = await stream.to_end()

    assert names(events)[-2:] == ["error", "done"]
    assert names(events).count("error") == 1
    assert (await client.turn(stream.turn_id))["error"]["code"] == "INTERNAL"
    assert everturn.model.requests_matching(second) == []
    assert await everturn.ledger(stream.turn_id) == []
    alerts = await everturn.query("SELECT details FROM alerts WHERE kind = 'defect'")
    assert '{"error": "ValidationError", "activity": "begin_turn"}' in [
        alert["details"] for alert in alerts
    ]
    await client.send(chat, "Hello")


async def test_hundreds_of_tool_calls_in_one_answer_are_made_up_to_a_bound(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    question = "hundreds of tool calls"
    calls = [
        tool_use("calculator", '{"expression": "1 + 1"}', index=number, call_id=f"toolu_{number}")
        for number in range(250)
    ]
    answer = whole(*(event for call in calls for event in call), stop_reason="tool_use")
    asked = []

    async with others(question) as more:
        while await more():
            everturn.model.add_raw(RawAnswer(match=question, chunks=answer))
            everturn.model.add(Script(match=question, text="Done."))
            chat = await client.new_chat()
            async with client.ask(question, chat_id=chat) as stream:
                events = await stream.to_end()
            assert rebuild(events) == "Done."
            assert names(events)[-1] == "done"
            asked.append((chat, stream.turn_id))

    chat, turn_id = asked[-1]
    stored = await everturn.query(
        "SELECT status FROM tool_calls WHERE turn_id = $1::text::uuid", turn_id
    )
    statuses = [call["status"] for call in stored]
    assert (statuses.count("completed"), statuses.count("failed")) == (32, 250 - 32)
    assert len(everturn.model.requests_matching(question)) == 2 * len(asked)
    assert [row["status"] for row in await everturn.ledger(turn_id)] == ["settled"] * 2
    await client.send(chat, "Hello")


async def test_a_model_that_pauses_for_ever_is_asked_as_often_as_a_turn_has_steps(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    question = "pauses for ever"
    pause = whole(*text("And then "), stop_reason="pause_turn")
    asked = []

    async with others(question) as more:
        while await more():
            everturn.model.add_raw(RawAnswer(match=question, chunks=pause, repeat=_MAX_STEPS))
            chat = await client.new_chat()
            async with client.ask(question, chat_id=chat) as stream:
                events = await stream.to_end()
            assert names(events)[-2:] == ["error", "done"]
            assert rebuild(events) == "And then " * _MAX_STEPS
            asked.append((chat, stream.turn_id))

    chat, turn_id = asked[-1]
    assert (await client.turn(turn_id))["error"]["code"] == "MAX_STEPS_EXCEEDED"
    assert len(everturn.model.requests_matching(question)) == len(asked) * _MAX_STEPS
    rows = await everturn.ledger(turn_id)
    assert [(row["status"], row["output_tokens"]) for row in rows] == [("settled", 5)] * _MAX_STEPS
    await client.send(chat, "Hello")


ODD: Final = {
    "an unknown reason": (whole(*text("So."), stop_reason="because"), "unknown_stop_reason"),
    "a call without a call": (whole(*text("So."), stop_reason="tool_use"), "unknown_stop_reason"),
    "nothing at all": (whole(), "empty_answer"),
    "a call that was cut off": (
        whole(*text("So."), *tool_use("calculator", "", index=1), stop_reason="max_tokens"),
        "max_tokens",
    ),
}


@pytest.mark.parametrize("end", ODD)
async def test_an_answer_that_ends_oddly_is_completed_with_a_notice(
    everturn: ScriptedStack, client: Client, end: str
) -> None:
    (answer, notice), question = ODD[end], f"ends with {end}"
    everturn.model.add_raw(RawAnswer(match=question, chunks=answer))

    async with client.ask(question) as stream:
        events = await stream.to_end()

    assert events[-1].status == "completed"
    assert [event.data["code"] for event in events if event.name == "notice"] == [notice]
    assert "tool_call" not in names(events)
    assert len(everturn.model.requests_matching(question)) == 1
