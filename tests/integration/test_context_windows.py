"""Chats that outgrow their model's window, at a provider that counts strictly by its own tokenizer.

Everturn does not know how the provider counts: its endpoint, the usage of earlier answers and the
estimate have to do.
"""

import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

import pytest

from tests.fakes.scripted_model.counting import Counting
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import named
from tests.fixtures.stack import Stack, open_stack
from tests.integration.test_steering import waiting_in_a_tool

WINDOW: Final = 200_000
SMALLER: Final = 40_000
SENTENCE: Final = "渡轮六点出发我们最好五点半之前赶到码头。"
_CHINESE: Final = re.compile("[\u3000-\u9fff\uff00-\uffef]+")


def counts(*, per_character: float, chars_per_token: float = 4.0) -> Counting:
    """Return a provider that counts Chinese characters so, and everything else by length."""

    def count(body: dict[str, Any]) -> int:
        counted = [body.get("system"), body.get("tools"), body["messages"]]
        text = json.dumps(counted, ensure_ascii=False)
        chinese = sum(map(len, _CHINESE.findall(text)))
        return round(chinese * per_character + (len(text) - chinese) / chars_per_token)

    return Counting(count, WINDOW)


@pytest.fixture(scope="session")
async def narrow(stack_name: str) -> AsyncIterator[Stack]:
    """A stack whose model has a window of 200,000 tokens, all of which a prompt may fill."""
    overrides = {
        "context_windows": {"claude-haiku-5-5": WINDOW, "claude-sonnet-5-5": SMALLER},
        "fallback_model": "claude-sonnet-5-5",
        "prompt_tokens": 1_000_000,
        "model_attempts": 1,
    }
    async with open_stack(f"{stack_name}-narrow", overrides) as opened:
        yield opened


@pytest.fixture
async def person(narrow: Stack) -> AsyncIterator[ApiUser]:
    """A user of that stack; its provider counts as it did before when the test is over."""
    yield await narrow.sign_up()
    narrow.model.counting = Counting()


def statuses(stack: Stack, questions: list[str]) -> list[int | None]:
    return [
        record.status
        for question in questions
        for record in stack.model.requests_matching(question)
    ]


@pytest.mark.parametrize("per_character", [0.7, 2.2])
async def test_a_chat_of_long_chinese_messages_is_never_refused(
    person: ApiUser, narrow: Stack, per_character: float
) -> None:
    narrow.model.counting = counts(per_character=per_character)
    chat = await person.create_chat()
    questions = [unique() for _ in range(12)]

    for question in questions:
        narrow.model.add(Script(match=question, text="好的。"))
        content = f"{question} {SENTENCE * 2000}"[:32_000]
        response = await person.post(chat, content)
        assert response.json()["data"]["turn"]["status"] == "completed"

    assert statuses(narrow, questions) == [200] * 12
    (last,) = narrow.model.requests_matching(questions[-1])
    filled = last.usage.input_tokens + 4_096
    # A chat that has been cut still fills most of the window.
    assert WINDOW * 0.6 <= filled <= WINDOW or per_character < 1


@pytest.mark.parametrize(
    "manners",
    [
        {"status": 404, "answer": b'{"type":"error","error":{"type":"not_found_error"}}'},
        {"answer": b"<html>"},
        {"answer": b'{"input_tokens": -1}'},
        {"answer": b'{"input_tokens": true}'},
        {"answer": b'{"input_tokens": 1}'},
        {"answer": b"[" * 100_000},
        {"held": True},
    ],
    ids=["gone", "no JSON", "negative", "no number", "absurd", "huge", "slow"],
)
async def test_a_gateway_that_cant_count_is_asked_once_and_the_turn_goes_on(
    person: ApiUser, narrow: Stack, manners: dict[str, Any]
) -> None:
    narrow.model.counting = counts(per_character=1.05)
    for name, value in manners.items():
        setattr(narrow.model.counting, name, value)
    forget_pause(narrow)
    chat = await person.create_chat()
    questions = [unique() for _ in range(7)]

    for question in questions:
        content = f"{question} {SENTENCE * 2000}"[:32_000]
        response = await person.post(chat, content)
        assert response.json()["data"]["turn"]["status"] == "completed"

    assert statuses(narrow, questions) == [200] * 7
    assert narrow.model.counting.asked == 1
    forget_pause(narrow)


def forget_pause(stack: Stack) -> None:
    """Let the stack ask the endpoint again."""
    stack.activities.turns._model_calls._cutting._counts._paused_until = 0.0


async def test_a_fallback_model_with_a_smaller_window_gets_less_of_the_chat(
    person: ApiUser, narrow: Stack
) -> None:
    narrow.model.counting = counts(per_character=1.05)
    chat = await person.create_chat()
    for _ in range(3):
        await person.post(chat, f"{unique()} {SENTENCE * 2000}"[:20_000])
    question = unique()
    narrow.model.add(Script(match=question, status=529))
    narrow.model.counting.window = None

    events = await person.events_of(chat, question)

    await person.check_whole(chat, events)
    first, second = narrow.model.requests_matching(question)
    assert (first.model, second.model) == ("claude-haiku-5-5", "claude-sonnet-5-5")
    assert second.usage.input_tokens + 4_096 <= SMALLER
    assert "conversation_shortened" in [event.data["code"] for event in named(events, "notice")]


async def test_results_of_tools_make_room_for_themselves_before_the_provider_refuses_them(
    person: ApiUser, narrow: Stack
) -> None:
    narrow.model.counting = counts(per_character=1.05)
    chat = await person.create_chat()
    for _ in range(5):
        await person.post(chat, f"{unique()} {SENTENCE * 2000}"[:32_000])
    question = unique()
    large = "7" * 400
    calls = tuple(ToolCall(name="calculator", input={"expression": large}) for _ in range(30))
    for _ in range(4):
        narrow.model.add(Script(match=question, tool_calls=calls))
    narrow.model.add(Script(match=question, text="Done."))

    events = await person.events_of(chat, question)

    await person.check_whole(chat, events)
    records = narrow.model.requests_matching(question)
    assert [record.status for record in records] == [200] * 5
    assert named(events, "done")[0].data["status"] == "completed"
    assert "conversation_shortened" in [event.data["code"] for event in named(events, "notice")]


async def test_a_chat_whose_message_can_never_fit_answers_the_next_one(
    person: ApiUser, narrow: Stack
) -> None:
    narrow.model.counting = counts(per_character=20)
    chat = await person.create_chat()

    events = await person.events_of(chat, f"{unique()} {SENTENCE * 1000}")

    assert [event.data["code"] for event in named(events, "error")] == ["PAYLOAD_TOO_LARGE"]
    response = await person.post(chat, unique())
    assert response.json()["data"]["turn"]["status"] == "completed"


async def test_a_message_too_long_for_the_running_turn_is_the_next_one(
    tight: Stack,
) -> None:
    user = await tight.sign_up()
    chat, steer = await user.create_chat(), unique("steer")
    long = f"{steer} {'word ' * 3_500}"
    tight.model.add(Script(match=steer, text="Too long."))
    async with waiting_in_a_tool(user, tight, chat) as (question, stream):
        tight.model.add(Script(match=question, text="Done."))
        async with user.stream(chat, long, ifBusy="steer") as sent:
            tight.gate_tool.open(question)
            events, others = await stream.all(), await sent.all()

    assert events[-1].data["status"] == "completed"
    assert named(events, "message_joined") == []
    assert named(others, "error")[0].data["code"] == "PAYLOAD_TOO_LARGE"
    assert others[-1].data["status"] == "failed"


async def test_a_steered_turn_that_its_provider_finds_too_long_keeps_what_joined_it(
    user: ApiUser, stack: Stack
) -> None:
    chat, steer = await user.create_chat(), unique("steer")
    for _ in range(4):
        await user.ask(chat, unique())
    too_long = "prompt is too long: 222205 tokens > 200000 maximum"
    stack.model.add(Script(match=steer, status=400, message=too_long, repeat=2))
    stack.model.add(Script(match=steer, text="It fits."))
    async with (
        waiting_in_a_tool(user, stack, chat) as (question, stream),
        user.stream(chat, steer, ifBusy="steer") as sent,
    ):
        stack.gate_tool.open(question)
        events, others = await stream.all(), await sent.all()

    await user.check_whole(chat, events)
    assert [event.data["code"] for event in named(events, "notice")] == ["conversation_shortened"]
    assert others[-1].data["joinedTurnId"] == stream.turn_id
    bodies = [record.body for record in stack.model.requests_matching(steer)]
    sent_messages = [body["messages"] for body in bodies if body is not None]
    assert len(sent_messages[0]) > len(sent_messages[1]) > len(sent_messages[2])
    for messages in sent_messages:
        texts = [block.get("text") for message in messages for block in message["content"]]
        assert question in texts
        assert texts[-1] == steer
        assert messages[-1]["content"][0]["type"] == "tool_result"
    charges = await stack.inspection.rows(
        "SELECT status FROM ledger WHERE turn_id = $1 AND status = 'open'", UUID(stream.turn_id)
    )
    assert charges == []
