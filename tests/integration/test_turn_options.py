"""What messages ask of their turns: tools, sampling, thinking, metadata."""

from typing import Any
from uuid import UUID

import pytest

from schema.ids import TurnId
from services.events.writer import fence_key, stream_key
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.charges import check_charges
from tests.fixtures.event_stream import Event, named, rebuild, turn_id_of
from tests.fixtures.plans import allow
from tests.fixtures.stack import Stack

SUM = ToolCall(id="sum", name="calculator", input={"expression": "12 * 34"})
SHOWN = {"type": "adaptive", "display": "summarized"}


def thoughts(events: list[Event]) -> str:
    return "".join(event.data["text"] for event in named(events, "thinking"))


def sent(stack: Stack, question: str) -> list[dict[str, Any]]:
    """Return the requests for a question."""
    return [record.body or {} for record in stack.model.requests_matching(question)]


async def test_a_model_is_asked_as_the_message_says(user: ApiUser, stack: Stack) -> None:
    question, metadata = unique(), {"from": ["a widget", None], "größe": 1}
    options = {
        "thinking": {"budgetTokens": 2048},
        "tools": ["calculator"],
        "maxTokens": 3000,
        "stopSequences": ["END"],
    }
    stack.model.add(Script(match=question, tool_calls=(SUM,)))
    stack.model.add(Script(match=question, text="408.", stop_reason="stop_sequence"))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, **options, metadata=metadata)

    await user.check_whole(chat, events)
    for body in sent(stack, question):
        assert body["thinking"] == SHOWN
        assert body["output_config"] == {"effort": "low"}
        assert [tool["name"] for tool in body["tools"]] == ["calculator"]
        assert (body["max_tokens"], body["stop_sequences"]) == (3000, ["END"])
        assert "widget" not in str(body)
    asked, answered = await user.messages(chat)
    assert (asked["metadata"], answered["metadata"]) == (metadata, None)
    assert (await user.turn(turn_id_of(events)))["options"] == options
    assert named(events, "notice") == []


async def test_no_tools_are_offered_where_none_are_asked_for(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Alone."))

    await user.ask(await user.create_chat(), question, tools=[])

    (body,) = sent(stack, question)
    assert "tools" not in body


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({"tools": ["no_such_tool"]}, 400, "body.tools.0"),
        ({"tools": ["calculator", "a b"]}, 400, "body.tools.1"),
        ({"temperature": 2}, 400, "body.temperature"),
        ({"temperature": 0.5}, 400, "body.temperature"),
        ({"thinking": "maybe"}, 400, "body.thinking"),
        ({"thinking": {"budgetTokens": 1}}, 400, "body.thinking.budgetTokens"),
        ({"thinking": "off", "model": "claude-opus-5-5"}, 400, "body.thinking"),
        ({"maxTokens": 0}, 400, "body.maxTokens"),
        ({"maxTokens": 100_000}, 400, "body.maxTokens"),
        ({"stopSequences": [" "]}, 400, "body.stopSequences.0"),
        ({"metadata": {"a": "x" * 9_000}}, 400, "body.metadata"),
        ({"metadata": {"a": "\x00"}}, 400, "body.metadata"),
        ({"metadata": []}, 400, "body.metadata"),
        ({"responseSchema": {"type": "nonsense"}}, 400, "body.responseSchema"),
    ],
)
async def test_what_can_not_be_asked_for_is_refused_with_its_path(
    user: ApiUser, body: dict[str, Any], status: int, path: str
) -> None:
    chat = await user.create_chat()

    response = await user.post(chat, "Hello", **body)

    assert response.status_code == status, response.text
    assert [problem["path"] for problem in response.json()["error"]["details"]] == [path]
    assert await user.messages(chat) == []


async def test_a_plan_bounds_tools_and_thinking(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Quick."))
    chat = await user.create_chat()
    await allow(stack.inspection, user.id, tools=["datetime"], maxThinkingTokens=0)

    refusals = [
        await user.post(chat, question, tools=["calculator"]),
        await user.post(chat, question, thinking="on"),
    ]
    await user.ask(chat, question)

    assert [response.status_code for response in refusals] == [403, 403]
    paths = [response.json()["error"]["details"][0]["path"] for response in refusals]
    assert paths == ["body.tools.0", "body.thinking"]
    assert [body["thinking"] for body in sent(stack, question)] == [{"type": "disabled"}]


async def test_a_repeated_request_has_to_ask_for_the_same(user: ApiUser, stack: Stack) -> None:
    question, key = unique(), unique("key")
    stack.model.add(Script(match=question, text="Once."))
    chat = await user.create_chat()
    options: dict[str, Any] = {"thinking": "on", "metadata": {"a": 1}}

    first = await user.post(chat, question, key=key, **options)
    again = await user.post(chat, question, key=key, **options)
    changes: tuple[dict[str, Any], ...] = (
        {"thinking": "off"},
        {"metadata": {"a": 2}},
        {"tools": []},
    )
    others = [
        await user.post(chat, question, key=key, **{**options, **change}) for change in changes
    ]

    assert first.json()["data"]["turn"]["id"] == again.json()["data"]["turn"]["id"]
    assert [other.json()["error"]["code"] for other in others] == ["IDEMPOTENCY_CONFLICT"] * 3


async def test_a_regenerated_answer_is_asked_for_in_the_same_way(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="An answer.", repeat=3))
    chat = await user.create_chat()
    turn = (await user.ask(chat, question, thinking="on", tools=["calculator"]))["turn"]["id"]

    same = await user.request("POST", f"/turns/{turn}/regenerate", json={})
    other = await user.request(
        "POST", f"/turns/{turn}/regenerate", json={"thinking": "off", "model": "claude-sonnet-5-5"}
    )

    _, again, otherwise = sent(stack, question)
    assert again["thinking"] == SHOWN
    assert otherwise["thinking"] == {"type": "between_tools"}
    assert [tool["name"] for tool in otherwise["tools"]] == ["calculator"]
    assert same.json()["data"]["turn"]["options"] == {"thinking": "on", "tools": ["calculator"]}
    assert other.json()["data"]["turn"]["options"]["thinking"] == "off"


async def test_thoughts_are_shown_and_sent_back_within_their_turn_alone(
    user: ApiUser, stack: Stack
) -> None:
    question, later = unique(), unique()
    stack.model.add(Script(match=question, thinking="A product, then.", tool_calls=(SUM,)))
    stack.model.add(Script(match=question, thinking="Clear.", text="It is 408."))
    stack.model.add(Script(match=later, text="Yes."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, thinking="on")
    await user.ask(chat, later)

    await user.check_whole(chat, events)
    assert (rebuild(events), thoughts(events)) == ("It is 408.", "A product, then.Clear.")
    _, second = sent(stack, question)
    assert second["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "A product, then.",
        "signature": "ZGVtbw==",
    }
    (body,) = sent(stack, later)
    assert "signature" not in str(body["messages"])
    turn = TurnId(UUID(turn_id_of(events)))
    await stack.foundation.redis.delete(stream_key(turn), fence_key(turn))
    from_database = await user.events(str(turn))
    assert thoughts(from_database) == "A product, then.Clear."
    await user.check_whole(chat, from_database)
    await check_charges(stack, str(turn), question)


async def test_a_stop_while_the_model_thinks_keeps_its_thoughts(
    user: ApiUser, stack: Stack
) -> None:
    question, gate = unique(), unique("gate")
    stack.model.add(Script(match=question, thinking="Let me think.", hold=gate, hold_after=2))
    chat = await user.create_chat()

    async with user.stream(chat, question, thinking="on") as stream:
        await stream.until_named("thinking")
        await user.cancel(stream.turn_id)
        events = await stream.all()

    assert events[-1].data["status"] == "cancelled"
    assert rebuild(events) == ""
    assert "Let me think.".startswith(thoughts(events))
    again = await user.events(stream.turn_id)
    assert thoughts(again) == thoughts(events)
    (charge,) = await check_charges(stack, stream.turn_id, question)
    assert charge["output_tokens"] >= 1


async def test_thinking_that_reaches_the_limit_leaves_a_notice(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, thinking="Too long. " * 2_000, text="Never said."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, thinking="on", maxTokens=1_100)

    await user.check_whole(chat, events)
    assert rebuild(events) == ""
    assert [event.data["code"] for event in named(events, "notice")] == ["max_tokens"]


async def test_another_model_gets_no_thoughts_and_only_what_it_takes(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    tight.model.add(Script(match=question, thinking="Mine.", tool_calls=(SUM,)))
    tight.model.add(Script(match=question, status=529, retry_after=0.05, repeat=2))
    tight.model.add(Script(match=question, text="I stand in."))
    chat = await user.create_chat()

    # Thinks with a budget, which the fallback does not take, nor a temperature.
    events = await user.events_of(chat, question, model="claude-haiku-5-5", thinking="on")

    await user.check_whole(chat, events)
    *_, last = sent(tight, question)
    assert last["model"] == "claude-sonnet-5-5"
    assert "signature" not in str(last["messages"])
    assert last["thinking"] == SHOWN


async def test_what_a_provider_refuses_all_the_same_is_left_out_with_a_notice(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    refusal = "thinking: Extra inputs are not permitted"
    stack.model.add(Script(match=question, status=400, message=refusal))
    stack.model.add(Script(match=question, text="Without.", repeat=2))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, thinking="on", model="claude-opus-5-5")
    later = await user.events_of(chat, question, thinking="on", model="claude-opus-5-5")

    await user.check_whole(chat, events)
    for heard in (events, later):
        (notice,) = named(heard, "notice")
        assert notice.data["code"] == "options_left_out"
        assert "`thinking`" in notice.data["message"]
    assert [("thinking" in body) for body in sent(stack, question)] == [True, False, False]


async def test_thoughts_that_are_refused_behind_a_shorter_prompt_are_left_out(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    refusal = "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound"
    stack.model.add(Script(match=question, thinking="Bound.", tool_calls=(SUM,)))
    stack.model.add(Script(match=question, status=400, message=refusal))
    stack.model.add(Script(match=question, text="Then without."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, thinking="on")

    assert rebuild(events) == "Then without."
    *_, last = sent(stack, question)
    assert "Bound." not in str(last["messages"])
    assert last["thinking"] == SHOWN
