"""A turn from a message to its stored answer: the model's input, its output and the cost."""

import pytest

from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.charges import check_charges
from tests.fixtures.event_stream import Event, named, rebuild, turn_id_of
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack


def last_tool_calls(events: list[Event]) -> dict[str, tuple[str, str | None]]:
    """Return how each tool call ended, by its id: status and output."""
    return {
        event.data["toolCallId"]: (event.data["status"], event.data.get("output"))
        for event in named(events, "tool_call")
    }


async def test_a_message_is_answered(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("It is ", "fine", ".")))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert [(m["role"], m["content"], m["status"]) for m in await user.messages(chat)] == [
        ("user", question, "completed"),
        ("assistant", "It is fine.", "completed"),
    ]
    (charge,) = await check_charges(stack, turn_id_of(events), question)
    assert charge["status"] == "settled"


async def test_an_answer_without_a_stream_holds_the_turn_and_both_messages(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Here it is."))
    chat = await user.create_chat()

    response = await user.post(chat, question)

    assert response.status_code == 200
    data = response.json()["data"]
    assert data["userMessage"]["content"] == question
    assert data["assistantMessage"]["content"] == "Here it is."
    assert data["turn"]["status"] == "completed"
    assert response.headers["x-turn-id"] == data["turn"]["id"]
    await check_charges(stack, data["turn"]["id"], question)


async def test_a_slow_answer_is_accepted_and_continues(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    # Twice: an answer that is held for long is asked for again.
    slow = Script(match=question, text="At last.", delay_between_s=0.2, hold="later", repeat=2)
    tight.model.add(slow)
    chat = await user.create_chat()

    response = await user.post(chat, question)

    assert response.status_code == 202
    data = response.json()["data"]
    assert data["assistantMessage"] is None
    assert data["turn"]["status"] in {"queued", "running"}
    tight.model.release("later")
    await user.check_whole(chat, await user.events(data["turn"]["id"]))


async def test_reported_usage_is_charged_with_its_cached_tokens(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    usage = ScriptedUsage(
        input_tokens=1_000,
        output_tokens=500,
        cache_read_input_tokens=20_000,
        cache_creation_input_tokens=3_000,
    )
    stack.model.add(Script(match=question, text="Cached.", usage=usage))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    (charge,) = await check_charges(stack, turn_id_of(events), question)
    assert (charge["cache_read_tokens"], charge["cache_write_tokens"]) == (20_000, 3_000)
    (reported,) = named(events, "usage")
    assert reported.data["cacheReadTokens"] == 20_000
    assert events[-1].data["usage"]["cacheWriteTokens"] == 3_000


async def test_thinking_is_kept_for_the_model_and_not_shown(user: ApiUser, stack: Stack) -> None:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "1 + 1"})
    stack.model.add(Script(match=question, thinking="Hmm, well.", tool_calls=(call,)))
    stack.model.add(Script(match=question, text="Two."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    assert rebuild(events) == "Two."
    second = stack.model.requests_matching(question)[1].body
    assert second is not None
    thought = second["messages"][1]["content"][0]
    assert (thought["type"], thought["thinking"]) == ("thinking", "Hmm, well.")
    assert thought["signature"]


async def test_tools_of_one_step_run_in_parallel_and_their_results_go_to_the_model(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    gate_1, gate_2 = unique("gate"), unique("gate")
    calls = (
        ToolCall(id="sum", name="calculator", input={"expression": "12 * 34"}),
        ToolCall(id="now", name="datetime", input={"operation": "now", "timezone": "Europe/Rome"}),
        ToolCall(id="first", name=GATE_TOOL, input={"gate": gate_1}),
        ToolCall(id="second", name=GATE_TOOL, input={"gate": gate_2}),
    )
    stack.model.add(Script(match=question, text="Let me see. ", tool_calls=calls))
    stack.model.add(Script(match=question, text="It is 408."))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate_1)
        await stack.gate_tool.reached(gate_2)
        stack.gate_tool.open(gate_2)
        stack.gate_tool.open(gate_1)
        events = await stream.all()

    await user.check_whole(chat, events)
    assert rebuild(events) == "Let me see. It is 408."
    ended = last_tool_calls(events)
    assert ended["sum"] == ("completed", "408")
    assert ended["now"][0] == "completed"
    assert ended["first"] == ("completed", f"through {gate_1}")
    second = stack.model.requests_matching(question)[1].body
    assert second is not None
    results = second["messages"][-1]["content"]
    assert [result["tool_use_id"] for result in results] == ["sum", "now", "first", "second"]
    assert [result["is_error"] for result in results] == [False] * 4
    await check_charges(stack, turn_id_of(events), question)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (ToolCall(id="it", name="no_such_tool", input={"a": 1}), "Tool `no_such_tool` not found"),
        (ToolCall(id="it", name="calculator", input={"sum": "1+1"}), "required but missing"),
        (ToolCall(id="it", name="calculator", input={"expression": "1/0"}), "zero"),
        (ToolCall(id="it", name="datetime", input={"operation": "fly"}), "Invalid input"),
    ],
)
async def test_a_tool_call_that_fails_goes_back_to_the_model(
    user: ApiUser, stack: Stack, call: ToolCall, hint: str
) -> None:
    question = unique()
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="Never mind."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "Never mind."
    status, output = last_tool_calls(events)["it"]
    assert status == "failed"
    assert hint in str(output)
    second = stack.model.requests_matching(question)[1].body
    assert second is not None
    (result,) = second["messages"][-1]["content"]
    assert (result["is_error"], result["content"]) == (True, output)


async def test_tool_calls_with_the_same_id_are_kept_apart(user: ApiUser, stack: Stack) -> None:
    question = unique()
    calls = tuple(
        ToolCall(id="same", name="calculator", input={"expression": expression})
        for expression in ("1 + 1", "2 + 2")
    )
    stack.model.add(Script(match=question, tool_calls=calls))
    stack.model.add(Script(match=question, text="Two and four."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert sorted(str(output) for _, output in last_tool_calls(events).values()) == ["2", "4"]


async def test_a_model_that_only_calls_tools_reaches_the_limit_of_steps(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "1 + 1"})
    tight.model.add(Script(match=question, text="Again. ", tool_calls=(call,), repeat=3))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert [event.data["code"] for event in named(events, "error")] == ["MAX_STEPS_EXCEEDED"]
    assert events[-1].data["status"] == "failed"
    assert len(await check_charges(tight, turn_id_of(events), question)) == 2
    tight.model.clear_scripts()


async def test_the_prompt_holds_the_conversation_in_the_order_of_its_turns(
    user: ApiUser, stack: Stack
) -> None:
    # Others' published documents are not the subject.
    await user.request("PUT", "/users/me/preferences", json={"useKnowledge": False})
    chat = await user.create_chat()
    questions = [unique(), unique(), unique()]
    for number, question in enumerate(questions):
        stack.model.add(Script(match=question, text=f"Answer {number}."))
        await user.ask(chat, question)

    (record,) = stack.model.requests_matching(questions[2])

    assert record.body is not None
    assert [
        (message["role"], "".join(block["text"] for block in message["content"]))
        for message in record.body["messages"]
    ] == [
        ("user", questions[0]),
        ("assistant", "Answer 0."),
        ("user", questions[1]),
        ("assistant", "Answer 1."),
        ("user", questions[2]),
    ]


async def test_a_conversation_that_outgrows_the_prompt_is_cut_from_its_beginning(
    tight: Stack,
) -> None:
    user = await tight.sign_up()
    chat = await user.create_chat()
    questions = [f"{unique()} {'x' * 6_000}", f"{unique()} {'y' * 6_000}"]
    for question in questions:
        tight.model.add(Script(match=question, text="Yes."))
        await user.check_whole(chat, await user.events_of(chat, question))

    (record,) = tight.model.requests_matching(questions[1])

    assert record.body is not None
    assert [message["content"][0]["text"] for message in record.body["messages"]] == [questions[1]]


async def test_a_message_too_large_for_the_prompt_fails_without_asking_the_model(
    tight: Stack,
) -> None:
    user = await tight.sign_up()
    chat = await user.create_chat()
    question = f"{unique()} {'x' * 12_000}"

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert [event.data["code"] for event in named(events, "error")] == ["PAYLOAD_TOO_LARGE"]
    assert await check_charges(tight, turn_id_of(events), question) == []


async def test_users_see_nothing_of_each_other(
    user: ApiUser, other_user: ApiUser, model: ScriptedModel
) -> None:
    mine, theirs = unique(), unique()
    model.add(Script(match=mine, text="For you."))
    model.add(Script(match=theirs, text="For them."))
    chat, other_chat = await user.create_chat(), await other_user.create_chat()
    await user.ask(chat, mine)
    data = await other_user.ask(other_chat, theirs)

    (record,) = model.requests_matching(theirs)

    assert mine not in str(record.body)
    for path in (
        f"/chats/{other_chat}",
        f"/chats/{other_chat}/messages",
        f"/turns/{data['turn']['id']}",
        f"/turns/{data['turn']['id']}/events",
    ):
        assert (await user.request("GET", path)).status_code == 403, path
    cancel = await user.request("POST", f"/turns/{data['turn']['id']}/cancel")
    assert cancel.status_code == 403
    assert (await user.post(other_chat, "Hello")).status_code == 403


async def test_the_requested_model_answers(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Opus."))
    chat = await user.create_chat()

    data = await user.ask(chat, question, model="claude-opus-5-5")

    assert data["turn"]["model"] == "claude-opus-5-5"
    (charge,) = await check_charges(stack, data["turn"]["id"], question)
    assert charge["model"] == "claude-opus-5-5"


async def test_an_answer_truncated_at_its_limit_has_a_notice(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="To be cont", stop_reason="max_tokens"))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    assert [event.data["code"] for event in named(events, "notice")] == ["max_tokens"]
    await user.check_whole(chat, events)


async def test_unstorable_characters_are_replaced_alike_in_stream_and_message(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(
        Script(match=question, pieces=("a\x00b", " \U0001f642 ", "line\r\nbreak\u2028"))
    )
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "a\ufffdb \U0001f642 line\r\nbreak\u2028"
