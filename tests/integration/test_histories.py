"""Workflow histories: small, and without any text of users or models."""

import base64
import binascii
import json
from collections.abc import Iterator
from uuid import uuid4

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import named
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack


def canary(where: str) -> str:
    return f"canary{where}{uuid4().hex}"


def texts_in(value: object) -> Iterator[str]:
    """Yield every text of a history, those that are encoded decoded as well."""
    match value:
        case str():
            yield value
            try:
                yield base64.b64decode(value, validate=True).decode()
            except (binascii.Error, ValueError):
                return
        case dict():
            for key, item in value.items():
                yield str(key)
                yield from texts_in(item)
        case list():
            for item in value:
                yield from texts_in(item)
        case _:
            return


async def history_of(stack: Stack, turn_id: str) -> str:
    handle = stack.temporal.get_workflow_handle(f"turn-{turn_id}")
    return (await handle.fetch_history()).to_json()


async def recorded_of(stack: Stack, turn_id: str) -> str:
    """Return everything that Temporal knows of a turn, decoded."""
    history = json.loads(await history_of(stack, turn_id))
    described = (
        await stack.temporal.get_workflow_handle(f"turn-{turn_id}").describe()
    ).raw_description
    info = str(described)
    payloads = [
        payload.data.decode(errors="replace")
        for payload in (
            *described.workflow_execution_info.search_attributes.indexed_fields.values(),
            *described.workflow_execution_info.memo.fields.values(),
            described.execution_config.user_metadata.summary,
            described.execution_config.user_metadata.details,
        )
    ]
    return "\n".join([*texts_in(history), info, *payloads])


async def test_no_text_of_a_conversation_reaches_temporal(user: ApiUser, stack: Stack) -> None:
    words = {
        where: canary(where)
        for where in (
            *("title", "question", "thought", "said", "input", "madeup", "toolid"),
            *("gate", "error", "lost", "answer", "key", "stopped", "second", "refused"),
        )
    }
    stack.gate_tool.open(words["gate"])
    calls = (
        ToolCall(name="calculator", input={"expression": words["input"]}),
        ToolCall(name=words["madeup"], input={"word": words["input"]}),
        ToolCall(id=f"{words['toolid']} !", name=GATE_TOOL, input={"gate": words["gate"]}),
    )
    for script in (
        Script(status=500, message=words["error"]),
        Script(pieces=(words["lost"], "and more"), break_after=1),
        Script(thinking=words["thought"], text=words["said"], tool_calls=calls),
        Script(text=words["answer"]),
    ):
        stack.model.add(script.model_copy(update={"match": words["question"]}))
    stack.model.add(
        Script(match=words["second"], pieces=(words["stopped"], "more"), hold="never", hold_after=1)
    )
    stack.model.add(Script(match=words["refused"], status=400, message=words["error"]))
    chat = await user.create_chat(words["title"])

    async with user.stream(chat, words["question"], key=words["key"]) as first:
        events = await first.all()
    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "completed"
    async with user.stream(chat, words["second"]) as second:
        await second.until_text(words["stopped"])
        await user.cancel(second.turn_id)
        await second.all()
    async with user.stream(chat, words["refused"]) as third:
        assert named(await third.all(), "error")

    for stream in (first, second, third):
        recorded = await recorded_of(stack, stream.turn_id)
        assert stream.turn_id in recorded
        assert {where for where, word in words.items() if word in recorded} == set()
        assert user.email not in recorded


async def test_a_plain_turn_takes_at_most_thirteen_events(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Plain."))
    chat = await user.create_chat()
    data = await user.ask(chat, question)
    handle = stack.temporal.get_workflow_handle(f"turn-{data['turn']['id']}")
    await handle.result()

    history = await handle.fetch_history()

    assert len(history.events) <= 13


async def test_a_turn_of_ten_steps_stays_small(user: ApiUser, stack: Stack) -> None:
    question = unique()
    calls = tuple(
        ToolCall(name="calculator", input={"expression": f"{number} * {number}"})
        for number in range(3)
    )
    stack.model.add(Script(match=question, text="x" * 5_000, tool_calls=calls, repeat=9))
    stack.model.add(Script(match=question, text="y" * 5_000))
    chat = await user.create_chat()
    events = await user.events_of(chat, question)
    await user.check_whole(chat, events)
    assert [event.data["step"] for event in named(events, "step")] == list(range(1, 11))

    history = await history_of(stack, events[0].data["turnId"])

    assert len(history.encode()) < 100_000


async def test_an_operator_finds_turns_by_user_and_chat_and_reads_their_steps(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Plain."))
    chat = await user.create_chat()
    data = await user.ask(chat, question)
    handle = stack.temporal.get_workflow_handle(f"turn-{data['turn']['id']}")
    outcome = await handle.result()

    described = await handle.describe()

    attributes = {pair.key.name: pair.value for pair in described.typed_search_attributes}
    assert attributes["EverturnUserId"] == user.id
    assert attributes["EverturnChatId"] == chat
    assert attributes["EverturnModel"] == "claude-haiku-5-5"
    assert outcome["status"] == "completed"
    assert "model call 1 · claude-haiku-5-5" in "\n".join(
        texts_in(json.loads(await history_of(stack, data["turn"]["id"])))
    )
