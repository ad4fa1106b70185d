"""What later turns send of earlier ones: what tools found, and nothing that would do harm."""

from typing import Any
from uuid import UUID

import pytest

from schema.ids import new_id
from services.prompts.tokens import tokens_of
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack

CALL = ToolCall(name="calculator", input={"expression": "6 * 7"}, id="call_1")


def sent(stack: Stack, question: str) -> list[dict[str, Any]]:
    """Return the messages of the last request with this question."""
    body = stack.model.requests_matching(question)[-1].body
    assert body is not None
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def kinds(messages: list[dict[str, Any]]) -> list[list[str]]:
    return [[block["type"] for block in message["content"]] for message in messages]


def asked(messages: list[dict[str, Any]]) -> list[str]:
    """Return the texts of the user's messages."""
    blocks = (block for each in messages if each["role"] == "user" for block in each["content"])
    return [block["text"] for block in blocks if block["type"] == "text"]


async def test_the_next_turn_knows_what_tools_found_and_thoughts_are_left_out(
    user: ApiUser, stack: Stack
) -> None:
    chat, first, second, third = await user.create_chat(), unique(), unique(), unique()
    stack.model.add(Script(match=first, text="Let me see.", thinking="Hm.", tool_calls=(CALL,)))
    stack.model.add(Script(match=first, text="It is 42."))
    stack.model.add(Script(match=second, tool_calls=(CALL,)))
    for question in (first, second, third):
        await user.ask(chat, question)

    messages = sent(stack, second)[:5]
    assert kinds(messages) == [
        ["text"],
        ["text", "tool_use"],
        ["tool_result"],
        ["text"],
        ["text"],
    ]
    assert messages[2]["content"][0]["content"] == "42"
    # The model used the same id in both turns.
    blocks = [block for each in sent(stack, third) for block in each["content"]]
    calls = [block["id"] for block in blocks if "id" in block]
    assert calls == ["call_1", "call_1_2"]


async def test_a_turn_that_was_stopped_leaves_what_was_said_and_each_call_has_a_result(
    user: ApiUser, stack: Stack
) -> None:
    chat, first, second = await user.create_chat(), unique(), unique()
    calls = (ToolCall(name=GATE_TOOL, input={"gate": first}, id="gate"), CALL)
    stack.model.add(Script(match=first, text="I look it up.", tool_calls=calls))
    async with user.stream(chat, first) as stream:
        await stream.until(lambda event: event.data.get("status") == "completed")
        await stack.gate_tool.reached(first)
        await user.cancel(stream.turn_id)
        await stream.all()

    await user.ask(chat, second)

    messages = sent(stack, second)
    assert kinds(messages) == [
        ["text"],
        ["text", "tool_use", "tool_use"],
        ["tool_result", "tool_result", "text"],
    ]
    failed, completed, _ = messages[2]["content"]
    assert (failed["is_error"], completed["is_error"]) == (True, False)


REFUSALS = {
    "by the provider": Script(status=400, message="Not this."),
    "by its safeguards": Script(text="Well, ", stop_reason="refusal"),
    "without a word": Script(text=" ", stop_reason="end_turn"),
}


@pytest.mark.parametrize("how", REFUSALS)
async def test_a_refused_message_is_left_out_of_all_later_prompts(
    user: ApiUser, stack: Stack, how: str
) -> None:
    chat, first, refused, third, last = await user.create_chat(), *(unique() for _ in range(4))
    await user.ask(chat, first)
    stack.model.add(REFUSALS[how].model_copy(update={"match": refused}))
    await user.post(chat, refused)

    await user.ask(chat, third)
    await user.ask(chat, last)

    assert asked(sent(stack, last)) == [first, third, last]


async def test_results_that_the_provider_refuses_are_left_out_but_not_what_was_said(
    user: ApiUser, stack: Stack
) -> None:
    chat, first, second = await user.create_chat(), unique(), unique()
    stack.model.add(Script(match=first, text="Let me see.", tool_calls=(CALL,)))
    stack.model.add(Script(match=first, status=400, message="Not this result."))
    await user.post(chat, first)

    await user.ask(chat, second)

    messages = sent(stack, second)
    assert kinds(messages) == [["text"], ["text"], ["text"]]
    assert messages[1]["content"][0]["text"] == "Let me see."


async def test_a_question_cancelled_before_a_word_is_left_out(user: ApiUser, stack: Stack) -> None:
    chat, first, second = await user.create_chat(), unique(), unique()
    stack.model.add(Script(match=first, text="Too late.", hold=first, hold_after=0))
    async with user.stream(chat, first) as stream:
        await stack.model.wait_for_request(match=first)
        await user.cancel(stream.turn_id)
        await stream.all()

    await user.ask(chat, second)

    assert asked(sent(stack, second)) == [second]


async def test_a_regenerated_answer_and_its_tools_replace_those_of_its_sibling(
    user: ApiUser, stack: Stack
) -> None:
    chat, first, second = await user.create_chat(), unique(), unique()
    stack.model.add(Script(match=first, tool_calls=(CALL,)))
    stack.model.add(Script(match=first, text="It is 42."))
    data = await user.ask(chat, first)
    stack.model.add(Script(match=first, text="Forty-two."))
    response = await user.request("POST", f"/turns/{data['turn']['id']}/regenerate", json={})
    assert response.status_code == 200, response.text

    await user.ask(chat, second)

    messages = sent(stack, second)
    assert kinds(messages) == [["text"], ["text"], ["text"]]
    assert messages[1]["content"][0]["text"] == "Forty-two."


async def test_older_results_are_a_line_and_the_newest_is_cut_to_its_room(
    user: ApiUser, stack: Stack
) -> None:
    chat, questions = await user.create_chat(), [unique() for _ in range(3)]
    for question in questions[:2]:
        stack.model.add(Script(match=question, tool_calls=(CALL,)))
        await user.ask(chat, question)
    # As an earlier release stored them: without sizes.
    await stack.inspection.execute(
        "UPDATE tool_calls SET output = repeat('word ', 30000) WHERE user_id = $1", UUID(user.id)
    )
    await stack.inspection.execute(
        "UPDATE messages SET work_tokens = NULL, brief_tokens = NULL WHERE user_id = $1",
        UUID(user.id),
    )

    await user.ask(chat, questions[2])

    older, newest = (
        block["content"]
        for message in sent(stack, questions[2])
        for block in message["content"]
        if block["type"] == "tool_result"
    )
    assert older == (
        "[Result of calculator (completed, 150,000 bytes): left out, since it is of an earlier "
        "turn.]"
    )
    assert newest.startswith("word word")
    assert 15_000 < tokens_of(newest) <= 20_000


async def test_another_attempt_sends_the_same_whatever_came_meanwhile(
    user: ApiUser, stack: Stack
) -> None:
    chat, first, second = await user.create_chat(), unique(), unique()
    answer = (await user.ask(chat, first))["assistantMessage"]
    stack.model.add(Script(match=second, status=500))
    stack.model.add(Script(match=second, text="Yes.", hold=second))

    async with user.stream(chat, second) as stream:
        await stack.model.wait_for_request(match=second, ended=True)
        await stack.inspection.execute(
            "INSERT INTO chat_summaries"
            " (id, chat_id, user_id, message_id, version, content, tokens, messages, model)"
            " VALUES ($1, $2, $3, $4, 1, 'All of it.', 5, 2, 'x')",
            new_id(),
            UUID(chat),
            UUID(user.id),
            UUID(answer["id"]),
        )
        await stack.model.wait_for_request(2, match=second)
        stack.model.release(second)
        await stream.all()

    failed, answered = (record.body for record in stack.model.requests_matching(second))
    assert failed == answered
    assert asked(sent(stack, second)) == [first, second]
