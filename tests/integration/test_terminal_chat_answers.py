"""Answers on their way to the terminal: cut, lost, refused, stopped, and exact at the end."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from everturn_client import (
    AsyncEverturn,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    StreamInterruptedError,
    TurnInProgressError,
    UnexpectedResponseError,
)
from tests.fakes.scripted_api import (
    ScriptedApi,
    ScriptedEvent,
    ScriptedTurn,
    delta,
    done,
    failure,
    serving,
    step,
    tool_call,
)
from tests.fixtures.terminal_chat import Recorder
from tests.fixtures.terminal_session import (
    ANSWER,
    credentials_of,
    move_to,
    signed_in,
    unfinished_turn,
)
from workers.terminal_chat.answering import Answering, TurnOutcome
from workers.terminal_chat.screen import PlainScreen

EVENTS: list[ScriptedEvent] = [
    ("turn", {"chatId": "c", "status": "running", "userMessageId": "m"}),
    step(1),
    delta(1, "Let me "),
    delta(1, "see. "),
    tool_call(1, "requested"),
    tool_call(1, "completed", output="42"),
    step(2),
    delta(2, "Eh bien"),
    step(2, attempt=2),
    delta(2, "Voilà", attempt=2),
    delta(2, ": 42 🙂\n", attempt=2),
    ("usage", {"step": 2, "attempt": 2, "model": "scripted-model", "inputTokens": 1}),
    done(ANSWER),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without credentials, and an environment without credentials."""
    move_to(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def script() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture
async def url(script: ScriptedApi) -> AsyncIterator[str]:
    async with serving(script) as address:
        yield address


@pytest.fixture
async def api(url: str) -> AsyncIterator[AsyncEverturn]:
    async with signed_in(url) as client:
        yield client


def answering(api: AsyncEverturn, screen: Recorder, *, reconnect_s: float = 60) -> Answering:
    return Answering(
        api,
        screen,
        lambda on_connection: api.messages.stream(
            "chat-1",
            content="6*7?",
            model="scripted-model",
            reconnect_s=reconnect_s,
            on_connection=on_connection,
        ),
    )


@pytest.mark.parametrize("delivered", range(len(EVENTS)))
async def test_a_stream_cut_within_any_event_is_resumed_to_the_exact_message(
    script: ScriptedApi, api: AsyncEverturn, delivered: int
) -> None:
    script.script, script.cuts = [ScriptedTurn(list(EVENTS))], [delivered]
    screen = Recorder()
    turn = answering(api, screen)
    assert await turn.run() is TurnOutcome.COMPLETED
    assert (turn.state.streamed_text, screen.text) == (ANSWER, ANSWER)
    assert script.resumed_after == [f"7-{delivered - 1}" if delivered else ""]
    assert screen.notes == ["reconnecting…", "reconnected"]
    assert len(script.sent) == 1


async def test_a_stream_cut_after_each_single_event_rebuilds_the_exact_message(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script, script.cuts = [ScriptedTurn(list(EVENTS))], [1] * (len(EVENTS) - 1)
    turn = answering(api, Recorder())
    assert await turn.run() is TurnOutcome.COMPLETED
    assert turn.state.streamed_text == ANSWER


async def test_a_message_whose_answer_is_lost_is_sent_again_under_the_same_key(
    script: ScriptedApi, url: str, api: AsyncEverturn
) -> None:
    script.script = [ScriptedTurn(list(EVENTS))]
    http = httpx2.AsyncClient(transport=LosingTheFirstAnswer())
    tokens = credentials_of(url)
    async with AsyncEverturn(url, token_store=tokens, http_client=http) as losing:
        turn = answering(losing, Recorder())
        assert await turn.run() is TurnOutcome.COMPLETED
    first, second = script.sent
    assert first == second
    assert first.body == {"content": "6*7?", "stream": True, "model": "scripted-model"}
    assert turn.state.streamed_text == ANSWER


class LosingTheFirstAnswer(httpx2.AsyncHTTPTransport):
    """A network that brings the first request to the server, and its answer nowhere."""

    lost = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if self.lost:
            return response
        self.lost = True
        await response.aclose()
        raise httpx2.ReadError("lost", request=request)


async def test_a_message_is_sent_again_while_the_api_is_unavailable(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script = [ScriptedTurn(list(EVENTS))]
    script.refusals = [failure(503, "SERVICE_UNAVAILABLE", "Away.", retryable=True)]
    turn = answering(api, Recorder())
    assert await turn.run() is TurnOutcome.COMPLETED
    assert (len(script.sent), turn.state.streamed_text) == (2, ANSWER)


async def test_a_message_that_must_wait_for_its_turn_is_followed_by_its_id(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script, script.accept_without_stream = [ScriptedTurn(list(EVENTS))], True
    screen = Recorder()
    assert await answering(api, screen).run() is TurnOutcome.COMPLETED
    assert (screen.text, screen.notes) == (ANSWER, ["queued; the answer will follow…"])


async def test_a_busy_chat_is_an_error_at_once(script: ScriptedApi, api: AsyncEverturn) -> None:
    script.refusals = [failure(409, "TURN_IN_PROGRESS", "A turn is in progress.", retryable=True)]
    with pytest.raises(TurnInProgressError, match=r"A turn is in progress. \(TURN_IN_PROGRESS\)"):
        await answering(api, Recorder()).run()
    assert len(script.sent) == 1


async def test_a_limit_on_messages_is_an_error_at_once(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.refusals = [failure(429, "RATE_LIMITED", "Too many messages.", retryable=True)]
    script.refusals[0].headers["Retry-After"] = "3600"
    with pytest.raises(RateLimitError, match="Too many messages"):
        await answering(api, Recorder()).run()


async def test_a_refused_input_is_named(script: ScriptedApi, api: AsyncEverturn) -> None:
    details = [{"path": "content", "message": "too short"}]
    script.refusals = [failure(400, "VALIDATION_ERROR", "Invalid input.", details=details)]
    with pytest.raises(BadRequestError) as caught:
        await answering(api, Recorder()).run()
    assert str(caught.value) == "Invalid input: content: too short (VALIDATION_ERROR)"


async def test_another_service_at_the_url_is_reported(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.refusals = [PlainTextResponse("Welcome to nginx!")]
    with pytest.raises(UnexpectedResponseError, match="can't read"):
        await answering(api, Recorder()).run()
    script.refusals = [PlainTextResponse("Away", status_code=404)]
    with pytest.raises(NotFoundError, match="HTTP_404"):
        await answering(api, Recorder()).run()


async def test_a_stream_that_never_recovers_is_abandoned(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script, script.cuts = [ScriptedTurn(list(EVENTS))], [3]
    screen = Recorder()
    with pytest.raises(StreamInterruptedError):
        await answering(api, screen, reconnect_s=0).run()
    assert screen.text == "Let me "


async def test_a_token_that_expires_during_the_answer_is_refreshed(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script, script.cuts = [ScriptedTurn(list(EVENTS))], [4]
    turn = answering(api, Recorder())
    script.expire_access_tokens()
    assert await turn.run() is TurnOutcome.COMPLETED
    assert script.refreshes == 1
    assert turn.state.streamed_text == ANSWER


async def test_an_interrupt_cancels_the_turn_and_shows_the_stored_text(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    script.script = [unfinished_turn()]
    screen = Recorder()
    turn = answering(api, screen)
    running = asyncio.create_task(turn.run())
    await screen.shows("Once upon")
    turn.interrupt()
    assert await running is TurnOutcome.CANCELLED
    assert len(script.cancelled) == 1
    assert (screen.text, screen.notes) == ("Once upon a", ["stopping…"])


async def test_a_second_interrupt_leaves_at_once(script: ScriptedApi, api: AsyncEverturn) -> None:
    script.script = [ScriptedTurn([step(1), delta(1, "Once upon")])]
    screen = Recorder()
    turn = answering(api, screen)
    running = asyncio.create_task(turn.run())
    await screen.shows("Once upon")
    turn.interrupt()
    turn.interrupt()
    assert await running is TurnOutcome.LEFT


async def test_plain_output_of_a_turn_that_was_cut_is_exact(
    script: ScriptedApi, api: AsyncEverturn
) -> None:
    events = [step(1), delta(1, "Let me see. "), step(2), delta(2, "42"), done("Let me see. 42")]
    script.script, script.cuts = [ScriptedTurn(events)], [1, 1, 1, 1]
    answers, lines = io.StringIO(), io.StringIO()
    screen = PlainScreen(answers=answers, lines=lines)
    turn = Answering(
        api,
        screen,
        lambda changed: api.messages.stream("chat-1", content="6*7?", on_connection=changed),
    )
    assert await turn.run() is TurnOutcome.COMPLETED
    assert answers.getvalue() == "Let me see. 42\n"
