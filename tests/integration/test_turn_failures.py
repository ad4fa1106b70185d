"""Turns whose model fails: retried, moved to another model or ended, and charged as billed."""

from typing import Any

import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.charges import check_charges
from tests.fixtures.event_stream import named, rebuild, turn_id_of
from tests.fixtures.stack import Stack

FAULTS = {
    "429 with retry-after": Script(status=429, retry_after=0.05),
    "500": Script(status=500),
    "529": Script(status=529, retry_after=0.05),
    "408": Script(status=408, retry_after=0.05),
    "a stream that breaks at its beginning": Script(text="Wrong.", break_after=0),
    "a stream that breaks in mid-answer": Script(pieces=("Wrong ", "start "), break_after=1),
    "a stream that breaks before its end": Script(pieces=("Wrong ", "start "), break_after=9),
    "an error event": Script(pieces=("Wrong ", "start "), error_after=1),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_transient_failure_is_followed_by_another_attempt(
    user: ApiUser, stack: Stack, fault: str
) -> None:
    question = unique()
    stack.model.add(FAULTS[fault].model_copy(update={"match": question}))
    stack.model.add(Script(match=question, pieces=("It ", "worked.")))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "It worked."
    assert [event.data["attempt"] for event in named(events, "step")] == [1, 2]
    failed, settled = await check_charges(stack, turn_id_of(events), question)
    assert (failed["status"], settled["status"]) == ("failed", "settled")


async def test_a_stalled_stream_is_abandoned_and_requested_again(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    tight.model.add(Script(match=question, pieces=("Well ", "…"), stall_after=1))
    tight.model.add(Script(match=question, text="Done."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "Done."
    failed, _ = await check_charges(tight, turn_id_of(events), question)
    assert (failed["status"], failed["output_tokens"]) == ("failed", 2)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "MODEL_REJECTED"),
        (401, "MODEL_REJECTED"),
        (403, "MODEL_REJECTED"),
        (404, "MODEL_REJECTED"),
        (413, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_a_final_refusal_of_the_provider_ends_the_turn_at_once(
    user: ApiUser, stack: Stack, status: int, code: str
) -> None:
    question = unique()
    stack.model.add(Script(match=question, status=status, message=f"No, {question}"))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert [event.data["code"] for event in named(events, "error")] == [code]
    assert named(events, "error")[0].data["retryable"] is False
    assert question not in named(events, "error")[0].data["message"]
    assert events[-1].data["status"] == "failed"
    (charge,) = await check_charges(stack, turn_id_of(events), question)
    assert charge["cost_usd"] == 0


async def test_the_answer_of_a_failed_turn_without_a_stream_is_its_error(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, status=400))
    chat = await user.create_chat()

    response = await user.post(chat, question)

    assert response.status_code == 502
    error = response.json()["error"]
    assert (error["code"], error["retryable"]) == ("MODEL_REJECTED", False)
    turn_id = response.headers["x-turn-id"]
    assert error["turnId"] == turn_id
    turn = (await user.request("GET", f"/turns/{turn_id}")).json()["data"]
    assert (turn["status"], turn["error"]["code"]) == ("failed", "MODEL_REJECTED")


async def test_a_turn_fails_when_its_attempts_are_used_up(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, status=529, retry_after=0.05, repeat=2))
    stack.model.add(Script(match=question, pieces=("Half an ", "answer"), break_after=1))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert [event.data["code"] for event in named(events, "error")] == ["MODEL_UNAVAILABLE"]
    stored = await user.answer_of(chat, turn_id_of(events))
    assert stored is not None
    assert (stored["content"], stored["status"]) == ("Half an ", "failed")
    charges = await check_charges(stack, turn_id_of(events), question)
    assert [charge["status"] for charge in charges] == ["failed"] * 3


async def test_the_fallback_model_answers_with_a_notice(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    tight.model.add(Script(match=question, status=529, retry_after=0.05, repeat=2))
    tight.model.add(Script(match=question, text="I stand in."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "I stand in."
    assert [event.data["code"] for event in named(events, "notice")] == ["fallback_model"]
    charges = await check_charges(tight, turn_id_of(events), question)
    assert [charge["model"] for charge in charges] == [
        "claude-haiku-5-5",
        "claude-haiku-5-5",
        "claude-sonnet-5-5",
    ]


async def test_a_fallback_model_that_fails_too_ends_the_turn(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    tight.model.add(Script(match=question, status=529, retry_after=0.05, repeat=4))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert [event.data["code"] for event in named(events, "error")] == ["MODEL_UNAVAILABLE"]
    assert len(await check_charges(tight, turn_id_of(events), question)) == 4


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        pytest.param({"status": 400}, ["{second}"], id="refused"),
        pytest.param(
            {"pieces": ("Half an ", "answer"), "break_after": 1, "repeat": 3},
            ["{first}", "Half an ", "{second}"],
            id="broken off",
        ),
    ],
)
async def test_only_what_was_answered_goes_out_with_the_next_message(
    user: ApiUser, stack: Stack, script: dict[str, Any], sent: list[str]
) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, **script))
    chat = await user.create_chat()
    await user.events_of(chat, first)
    stack.model.add(Script(match=second, text="Here again."))

    data = await user.ask(chat, second)

    assert data["assistantMessage"]["content"] == "Here again."
    (record,) = stack.model.requests_matching(second)
    assert record.body is not None
    texts = [block["text"] for message in record.body["messages"] for block in message["content"]]
    assert texts == [text.format(first=first, second=second) for text in sent]


async def test_a_message_that_was_stopped_before_its_answer_is_not_sent_again(
    user: ApiUser, stack: Stack
) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, text="Too late", hold=first))
    chat = await user.create_chat()
    async with user.stream(chat, first) as stream:
        await stack.model.wait_for_request(match=first)
        await user.cancel(stream.turn_id)
        await stream.all()

    await user.ask(chat, second)

    (record,) = stack.model.requests_matching(second)
    assert record.body is not None
    (message,) = record.body["messages"]
    assert [block["text"] for block in message["content"]] == [second]


async def test_a_prompt_that_is_too_long_for_the_model_is_cut_until_it_fits(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    for _ in range(4):
        await user.ask(chat, unique())
    newest, after = unique(), unique()
    too_long = "prompt is too long: 222205 tokens > 200000 maximum"
    stack.model.add(Script(match=newest, status=400, message=too_long, repeat=2))
    stack.model.add(Script(match=newest, text="It fits."))

    events = await user.events_of(chat, newest)

    await user.check_whole(chat, events)
    assert rebuild(events) == "It fits."
    assert [event.data["code"] for event in named(events, "notice")] == ["conversation_shortened"]
    sent = [
        record.body["messages"] for record in stack.model.requests_matching(newest) if record.body
    ]
    assert len(sent[0]) == 9 > len(sent[1]) > len(sent[2])
    assert [messages[-1]["content"][-1]["text"] for messages in sent] == [newest] * 3
    await user.ask(chat, after)
