"""Streams of the client: typed events, broken connections, cancelling, cleanup."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

import everturn_client as everturn
from tests.fixtures.client_wire import noted_pauses

Sent = tuple[str, dict[str, Any]]
Part = bytes | Exception

MESSAGE = {
    "id": "m-2",
    "chatId": "c-1",
    "turnId": "t-1",
    "role": "assistant",
    "content": "It is 42.",
    "status": "completed",
    "createdAt": "2026-01-31T09:00:00.000000Z",
}
USAGE = {"inputTokens": 8, "outputTokens": 3, "cacheReadTokens": 0, "cacheWriteTokens": 0}
TURN: Sent = ("turn", {"turnId": "t-1", "chatId": "c-1", "status": "queued", "userMessageId": "m"})
EVENTS: list[Sent] = [
    TURN,
    ("step", {"step": 1, "attempt": 1, "model": "scripted"}),
    ("delta", {"step": 1, "attempt": 1, "text": "It "}),
    ("weather", {"mood": "fine"}),
    ("delta", {"step": 1, "attempt": 1, "text": "is 42."}),
    ("done", {"status": "completed", "assistantMessage": MESSAGE, "usage": USAGE, "costUsd": "1"}),
]


def frames(events: list[Sent], *, first: int = 0) -> list[bytes]:
    return [
        f"id: 7-{number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
        for number, (name, data) in enumerate(events, start=first)
    ]


class Parts(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in parts, the last of which may be an error; it knows if it is closed."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Wire:
    """Answers requests in order, and keeps them."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self) -> everturn.Everturn:
        http = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        return everturn.Everturn("http://h", http_client=http)

    def async_client(self) -> everturn.AsyncEverturn:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer))
        return everturn.AsyncEverturn("http://h", http_client=http)

    @property
    def seen(self) -> list[str]:
        return [f"{request.method} {request.url.path[7:]}" for request in self.requests]

    @property
    def resumed_after(self) -> list[str | None]:
        return [request.headers.get("Last-Event-ID") for request in self.requests[1:]]


def stream(*parts: Part, status: int = 200) -> httpx2.Response:
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Turn-Id": "t-1"}
    return httpx2.Response(status, headers=headers, stream=Parts(list(parts)))


def failure(status: int, code: str, **headers: str) -> httpx2.Response:
    error = {"code": code, "message": "Refused.", "retryable": True}
    return httpx2.Response(status, json={"error": error}, headers=headers)


CUT = httpx2.ReadError("cut")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses in seconds, without jitter."""
    return noted_pauses(monkeypatch)


def test_events_are_typed_and_unknown_ones_pass_through() -> None:
    wire = Wire(stream(b": hello\n\n", *frames(EVENTS)))

    with wire.client().messages.stream("c-1", content="6*7?", model="scripted") as turn:
        events = list(turn)

    assert json.loads(wire.requests[0].content) == {
        "content": "6*7?",
        "stream": True,
        "model": "scripted",
    }
    assert wire.requests[0].headers["Idempotency-Key"]
    assert [event.type for event in events] == [name for name, _ in EVENTS]
    assert [event.id for event in events] == [f"7-{number}" for number in range(6)]
    assert isinstance(events[1], everturn.StepEvent)
    assert isinstance(events[3], everturn.UnknownEvent)
    assert events[3].data == {"mood": "fine"}
    assert isinstance(events[5], everturn.DoneEvent)
    assert turn.turn_id == turn.state.turn_id == "t-1"


def test_the_text_comes_as_it_grows_and_the_result_at_the_end() -> None:
    with Wire(stream(*frames(EVENTS))).client().messages.stream("c-1", content="6*7?") as turn:
        assert list(turn.text_stream) == ["It ", "is 42."]
        result = turn.final()

    assert (result.status, result.text, result.turn_id) == ("completed", "It is 42.", "t-1")
    assert result.message is not None
    assert result.message.id == "m-2"
    assert result.usage is not None
    assert (result.usage.input_tokens, str(result.cost_usd)) == (8, "1")


@pytest.mark.parametrize("delivered", range(len(EVENTS)))
def test_a_stream_cut_within_any_event_is_resumed_after_the_last_whole_one(
    delivered: int, pauses: list[float]
) -> None:
    sent = frames(EVENTS)
    wire = Wire(
        stream(*sent[:delivered], sent[delivered][:-7], CUT),
        stream(*sent[delivered:]),
    )
    changes: list[str] = []

    with wire.client().messages.stream("c-1", content="6*7?", on_connection=changes.append) as turn:
        ids = [event.id for event in turn]

    assert ids == [f"7-{number}" for number in range(len(EVENTS))]
    assert turn.state.streamed_text == "It is 42."
    assert wire.seen == ["POST /chats/c-1/messages", "GET /turns/t-1/events"]
    assert wire.resumed_after == [f"7-{delivered - 1}" if delivered else None]
    assert changes == ["lost", "restored"]
    assert pauses == [0.0]


def test_a_stream_that_ends_early_or_is_refused_for_a_while_is_resumed(
    pauses: list[float],
) -> None:
    sent = frames(EVENTS)
    wire = Wire(
        stream(*sent[:2]),
        failure(503, "SERVICE_UNAVAILABLE"),
        failure(429, "RATE_LIMITED", **{"Retry-After": "9"}),
        httpx2.ConnectError("refused"),
        stream(*sent[2:]),
    )

    with wire.client().messages.stream("c-1", content="6*7?") as turn:
        assert turn.final().text == "It is 42."

    assert wire.resumed_after == ["7-1"] * 4
    assert pauses == [0.0, 0.5, 9.0, 2.0]


def test_a_stream_that_may_not_be_resumed_is_an_error() -> None:
    wire = Wire(stream(frames(EVENTS)[0]), failure(403, "FORBIDDEN"))

    with (
        wire.client().messages.stream("c-1", content="6*7?") as turn,
        pytest.raises(everturn.PermissionDeniedError),
    ):
        turn.final()


def test_a_stream_that_never_recovers_is_abandoned() -> None:
    wire = Wire(stream(*frames(EVENTS)[:3], CUT))

    with (
        wire.client().messages.stream("c-1", content="6*7?", reconnect_s=0) as turn,
        pytest.raises(everturn.StreamInterruptedError) as caught,
    ):
        turn.final()

    assert caught.value.turn_id == "t-1"
    assert turn.state.text == "It "


def test_a_message_is_sent_again_under_the_same_key_until_its_turn_is_known() -> None:
    wire = Wire(
        httpx2.ReadError("cut"), failure(503, "SERVICE_UNAVAILABLE"), stream(*frames(EVENTS))
    )

    with wire.client().messages.stream("c-1", content="6*7?") as turn:
        turn.final()

    keys = {request.headers["Idempotency-Key"] for request in wire.requests}
    assert (len(wire.requests), len(keys)) == (3, 1)


def test_a_refused_message_is_an_error_at_once() -> None:
    wire = Wire(failure(409, "TURN_IN_PROGRESS"))

    with (
        pytest.raises(everturn.TurnInProgressError),
        wire.client().messages.stream("c-1", content="6*7?"),
    ):
        pytest.fail("opened")

    assert len(wire.requests) == 1


def test_a_message_whose_turn_must_wait_is_followed_by_its_id() -> None:
    turn = {
        "id": "t-1",
        "chatId": "c-1",
        "status": "queued",
        "model": "m",
        "userMessageId": "m-1",
        "usage": USAGE,
        "costUsd": "0",
        "createdAt": MESSAGE["createdAt"],
    }
    body = {"data": {"turn": turn, "userMessage": None, "assistantMessage": None}}
    wire = Wire(httpx2.Response(202, json=body), stream(*frames(EVENTS)))
    changes: list[str] = []

    with wire.client().messages.stream(
        "c-1", content="6*7?", on_connection=changes.append
    ) as accepted:
        assert accepted.turn_id == "t-1"
        assert accepted.final().text == "It is 42."

    assert changes == ["accepted"]


def test_a_stream_that_is_not_opened_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="context manager"):
        Wire().client().messages.stream("c-1", content="6*7?").final()


def test_a_response_that_is_not_a_stream_is_reported() -> None:
    wire = Wire(httpx2.Response(200, text="Welcome!"))

    with (
        pytest.raises(everturn.UnexpectedResponseError),
        wire.client().messages.stream("c-1", content="6*7?"),
    ):
        pytest.fail("opened")


def test_an_event_that_does_not_fit_its_name_is_an_error() -> None:
    wire = Wire(stream(*frames([("delta", {"step": "one"})])))

    with (
        wire.client().turns.events("t-1") as turn,
        pytest.raises(everturn.UnexpectedResponseError, match="`delta`"),
    ):
        list(turn)


def test_a_turn_can_be_followed_from_an_event_on() -> None:
    wire = Wire(stream(*frames(EVENTS[4:], first=4)))

    with wire.client().turns.events("t-1", after="7-3") as turn:
        events = list(turn)

    assert wire.requests[0].headers["Last-Event-ID"] == "7-3"
    assert [event.id for event in events] == ["7-4", "7-5"]


def test_cancelling_reads_to_the_end_of_the_stream() -> None:
    stopped: Sent = (
        "done",
        {"status": "cancelled", "assistantMessage": {**MESSAGE, "content": "It "}},
    )
    turn = {
        "id": "t-1",
        "chatId": "c-1",
        "status": "running",
        "model": "m",
        "userMessageId": "m-1",
        "usage": USAGE,
        "costUsd": "0",
        "createdAt": MESSAGE["createdAt"],
    }
    wire = Wire(stream(*frames([*EVENTS[:3], stopped])), httpx2.Response(202, json={"data": turn}))

    with wire.client().messages.stream("c-1", content="6*7?") as streamed:
        for event in streamed:
            if isinstance(event, everturn.DeltaEvent):
                assert streamed.cancel().status == "running"
        result = streamed.final()

    assert wire.seen[1] == "POST /turns/t-1/cancel"
    assert (result.status, result.text) == ("cancelled", "It ")


def test_a_failed_turn_is_an_error_of_its_text_and_its_result_but_not_of_its_events() -> None:
    failed: list[Sent] = [
        TURN,
        ("error", {"code": "BUDGET_EXCEEDED", "message": "No budget.", "retryable": False}),
        ("done", {"status": "failed"}),
    ]
    client = Wire(stream(*frames(failed)), stream(*frames(failed))).client()

    with client.messages.stream("c-1", content="6*7?") as turn:
        assert [event.type for event in turn] == ["turn", "error", "done"]
        with pytest.raises(everturn.TurnFailedError, match="No budget") as caught:
            turn.final()
    with (
        client.messages.stream("c-1", content="6*7?") as turn,
        pytest.raises(everturn.TurnFailedError),
    ):
        list(turn.text_stream)

    assert (caught.value.code, caught.value.turn_id) == ("BUDGET_EXCEEDED", "t-1")


def test_leaving_a_stream_closes_its_connection_and_cancels_nothing() -> None:
    parts = Parts([*frames(EVENTS)])
    headers = {"Content-Type": "text/event-stream", "X-Turn-Id": "t-1"}
    wire = Wire(httpx2.Response(200, headers=headers, stream=parts))

    with wire.client().messages.stream("c-1", content="6*7?") as turn:
        next(iter(turn))

    assert parts.closed
    assert len(wire.requests) == 1


async def test_the_async_stream_does_the_same(pauses: list[float]) -> None:
    sent = frames(EVENTS)
    wire = Wire(stream(*sent[:3], CUT), stream(*sent[3:]), stream(*sent), stream(*sent))
    async with wire.async_client() as client:
        async with client.messages.stream("c-1", content="6*7?") as turn:
            ids = [event.id async for event in turn]
            result = await turn.final()
        async with client.turns.events("t-1") as again:
            text = [piece async for piece in again.text_stream]
        async with client.turns.stream_regenerate("t-1") as regenerated:
            assert (await regenerated.final()).text == "It is 42."

    assert ids == [f"7-{number}" for number in range(len(EVENTS))]
    assert (result.text, text) == ("It is 42.", ["It ", "is 42."])
    assert wire.seen[-1] == "POST /turns/t-1/regenerate"
    assert pauses == [0.0]


def text_of(*events: Sent) -> list[str]:
    with Wire(stream(*frames(list(events)))).client().turns.events("t-1") as turn:
        return list(turn.text_stream)


def test_text_that_a_new_attempt_repeats_is_given_once() -> None:
    again: list[Sent] = [
        ("step", {"step": 1, "attempt": 2}),
        ("delta", {"step": 1, "attempt": 2, "text": "It is"}),
        ("delta", {"step": 1, "attempt": 2, "text": " 42."}),
    ]
    assert text_of(*EVENTS[:3], *again, EVENTS[-1]) == ["It ", "is", " 42."]


def test_text_that_comes_back_different_follows_whole_after_a_line_break() -> None:
    other: list[Sent] = [
        ("step", {"step": 1, "attempt": 2}),
        ("delta", {"step": 1, "attempt": 2, "text": "Good "}),
        ("delta", {"step": 1, "attempt": 2, "text": "day."}),
    ]
    done: Sent = ("done", {"status": "completed"})
    assert text_of(*EVENTS[:3], *other, done) == ["It ", "\nGood ", "day."]
