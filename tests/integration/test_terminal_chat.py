import asyncio
import io
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.responses import PlainTextResponse

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
from tests.fixtures.terminal_chat import Recorder, Terminal, open_terminal
from workers.terminal_chat.answering import Answering, TurnOutcome
from workers.terminal_chat.api_client import ApiClient, OutgoingMessage
from workers.terminal_chat.command import run_chat
from workers.terminal_chat.credentials import CredentialFile, Credentials, credentials_path
from workers.terminal_chat.errors import (
    ApiError,
    ConnectionLostError,
    CredentialFileError,
    UnreachableError,
    UnreadableAnswerError,
)
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.plain_screen import PlainScreen
from workers.terminal_chat.turn_stream import Patience

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
ANSWER = "Let me see. Voilà: 42 🙂\n"
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
    """A home without credentials, and an environment that signs nobody in."""
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("EVERTURN_EMAIL", "EVERTURN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def script() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture
async def url(script: ScriptedApi) -> AsyncIterator[str]:
    async with serving(script) as address:
        yield address


@pytest.fixture
async def api(url: str) -> AsyncIterator[ApiClient]:
    client = ApiClient(url, CredentialFile(credentials_path(), url=url))
    async with aclosing(client):
        await client.log_in(email=EMAIL, password=SecretStr(PASSWORD))
        yield client


@pytest.fixture
def signed_in_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTURN_EMAIL", EMAIL)
    monkeypatch.setenv("EVERTURN_PASSWORD", PASSWORD)


def eager() -> Patience:
    return Patience(first_pause_s=0, longest_pause_s=0)


def answering(api: ApiClient, screen: Recorder, patience: Patience | None = None) -> Answering:
    message = OutgoingMessage("chat-1", "6*7?", model="scripted-model")
    return Answering(api, screen, message, patience=patience or eager())


@pytest.mark.parametrize("delivered", range(len(EVENTS)))
async def test_a_stream_cut_within_any_event_is_resumed_to_the_exact_message(
    script: ScriptedApi, api: ApiClient, delivered: int
) -> None:
    script.script, script.cuts = [ScriptedTurn(list(EVENTS))], [delivered]
    screen = Recorder()
    turn = answering(api, screen)
    assert await turn.run() is TurnOutcome.COMPLETED
    assert (turn.transcript.streamed_text, screen.text) == (ANSWER, ANSWER)
    assert script.resumed_after == [f"7-{delivered - 1}" if delivered else ""]
    assert screen.notes == ["reconnecting…", "connected again"]
    assert len(script.sent) == 1


async def test_a_stream_cut_after_each_single_event_rebuilds_the_exact_message(
    script: ScriptedApi, api: ApiClient
) -> None:
    script.script, script.cuts = [ScriptedTurn(list(EVENTS))], [1] * (len(EVENTS) - 1)
    turn = answering(api, Recorder())
    assert await turn.run() is TurnOutcome.COMPLETED
    assert turn.transcript.streamed_text == ANSWER


async def test_a_message_whose_answer_is_lost_is_sent_again_under_the_same_key(
    script: ScriptedApi, url: str, api: ApiClient
) -> None:
    script.script = [ScriptedTurn(list(EVENTS))]
    transport = LosingTheFirstAnswer()
    async with aclosing(ApiClient(url, api.credentials, transport=transport)) as losing:
        turn = answering(losing, Recorder())
        assert await turn.run() is TurnOutcome.COMPLETED
    first, second = script.sent
    assert first == second
    assert first.body == {"content": "6*7?", "stream": True, "model": "scripted-model"}
    assert turn.transcript.streamed_text == ANSWER


class LosingTheFirstAnswer(httpx.AsyncHTTPTransport):
    """A network that brings the first request to the server, and its answer nowhere."""

    lost = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if self.lost:
            return response
        self.lost = True
        await response.aclose()
        raise httpx.ReadError("lost", request=request)


async def test_a_message_that_the_api_can_not_take_just_now_is_sent_again(
    script: ScriptedApi, api: ApiClient
) -> None:
    script.script = [ScriptedTurn(list(EVENTS))]
    script.refusals = [failure(503, "SERVICE_UNAVAILABLE", "Away.", retryable=True)]
    screen = Recorder()
    assert await answering(api, screen).run() is TurnOutcome.COMPLETED
    assert screen.notes == ["reconnecting…", "connected again"]


async def test_a_message_that_must_wait_for_its_turn_is_followed_by_its_id(
    script: ScriptedApi, api: ApiClient
) -> None:
    script.script, script.accept_without_stream = [ScriptedTurn(list(EVENTS))], True
    screen = Recorder()
    assert await answering(api, screen).run() is TurnOutcome.COMPLETED
    assert (screen.text, screen.notes) == (ANSWER, ["accepted; the answer will follow…"])


async def test_a_busy_chat_is_an_error_at_once(script: ScriptedApi, api: ApiClient) -> None:
    script.refusals = [failure(409, "TURN_IN_PROGRESS", "A turn is in progress.", retryable=True)]
    with pytest.raises(ApiError, match=r"A turn is in progress. \(TURN_IN_PROGRESS\)"):
        await answering(api, Recorder()).run()
    assert len(script.sent) == 1


async def test_a_limit_on_messages_is_an_error_at_once(script: ScriptedApi, api: ApiClient) -> None:
    script.refusals = [failure(429, "RATE_LIMITED", "Too many messages.", retryable=True)]
    with pytest.raises(ApiError, match="Too many messages"):
        await answering(api, Recorder()).run()


async def test_a_refused_input_is_named(script: ScriptedApi, api: ApiClient) -> None:
    details = [{"path": "content", "message": "too short"}]
    script.refusals = [failure(400, "VALIDATION_ERROR", "Invalid input.", details=details)]
    with pytest.raises(ApiError) as caught:
        await answering(api, Recorder()).run()
    assert str(caught.value) == "Invalid input: content: too short (VALIDATION_ERROR)"


async def test_what_answers_without_being_this_api_is_named_as_such(
    script: ScriptedApi, api: ApiClient
) -> None:
    script.refusals = [PlainTextResponse("Welcome to nginx!")]
    with pytest.raises(UnreadableAnswerError, match="can't read"):
        await answering(api, Recorder()).run()
    script.refusals = [PlainTextResponse("Away", status_code=404)]
    with pytest.raises(ApiError, match="HTTP_404"):
        await answering(api, Recorder()).run()


async def test_a_file_of_tokens_that_can_not_be_written_is_one_line(
    url: str, home: Path, api: ApiClient
) -> None:
    (home / "taken").write_text("a file where a folder should be")
    file = CredentialFile(home / "taken" / "credentials.json", url=url)
    with pytest.raises(CredentialFileError, match="can't be kept"):
        file.save(_some_credentials(api))


async def test_an_unreadable_file_of_tokens_holds_none(url: str, home: Path) -> None:
    (home / "credentials.json").write_text("{")
    assert CredentialFile(home / "credentials.json", url=url).load() is None


async def test_a_stream_that_never_comes_back_is_given_up(
    script: ScriptedApi, api: ApiClient
) -> None:
    script.script, script.cuts = [ScriptedTurn(list(EVENTS))], [3]
    screen = Recorder()
    with pytest.raises(ConnectionLostError, match="--chat chat-1"):
        await answering(api, screen, Patience(limit_s=0)).run()
    assert screen.text == "Let me "


async def test_a_server_that_is_away_is_given_up(api: ApiClient) -> None:
    async with aclosing(ApiClient("http://127.0.0.1:1", api.credentials)) as nowhere:
        nowhere.credentials.save(_some_credentials(api))
        with pytest.raises(UnreachableError, match="everturn dev"):
            await answering(nowhere, Recorder(), Patience(limit_s=0)).run()


def _some_credentials(api: ApiClient) -> Credentials:
    credentials = api.credentials.load()
    assert credentials is not None
    return credentials


async def test_a_token_that_expires_while_the_answer_comes_is_refreshed(
    script: ScriptedApi, api: ApiClient
) -> None:
    script.script, script.cuts = [ScriptedTurn(list(EVENTS))], [4]
    turn = answering(api, Recorder())
    script.expire_access_tokens()
    assert await turn.run() is TurnOutcome.COMPLETED
    assert script.refreshes == 1
    assert turn.transcript.streamed_text == ANSWER


async def test_requests_at_the_same_time_refresh_an_expired_token_once(
    script: ScriptedApi, api: ApiClient
) -> None:
    script.expire_access_tokens()
    await asyncio.gather(*(api.check_sign_in() for _ in range(5)))
    assert script.refreshes == 1


def unfinished_turn() -> ScriptedTurn:
    return ScriptedTurn(
        [step(1), delta(1, "Once upon")],
        when_cancelled=[delta(1, " a"), done("Once upon a", status="cancelled")],
    )


async def test_an_interrupt_cancels_the_turn_and_shows_what_was_stored(
    script: ScriptedApi, api: ApiClient
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


async def test_a_second_interrupt_leaves_at_once(script: ScriptedApi, api: ApiClient) -> None:
    script.script = [ScriptedTurn([step(1), delta(1, "Once upon")])]
    screen = Recorder()
    turn = answering(api, screen)
    running = asyncio.create_task(turn.run())
    await screen.shows("Once upon")
    turn.interrupt()
    turn.interrupt()
    assert await running is TurnOutcome.LEFT


Chat = Callable[..., Awaitable[int]]


@pytest.fixture
def chat(url: str, home: Path) -> Chat:
    """Run the command in a thread, since it runs a loop of its own."""

    def run(**options: Any) -> Awaitable[int]:  # noqa: ANN401
        defaults = {"email": None, "chat_id": None, "new": False, "model": None, "message": None}
        everything: dict[str, Any] = {"url": url, "data_dir": home} | defaults | options
        return asyncio.to_thread(lambda: run_chat(**everything))

    return run


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_one_message_prints_the_exact_answer_and_nothing_else(
    script: ScriptedApi, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    script.script = [ScriptedTurn([step(1), delta(1, ANSWER), done(ANSWER)])]
    assert await chat(message="6*7?") == 0
    output = capsys.readouterr()
    assert output.out == f"{ANSWER}\n"
    assert output.err == "scripted-model · 812 in, 96 out · $0.0012\n"
    assert script.chats[0]["title"] == "6*7?"


@pytest.mark.usefixtures("signed_in_by_environment")
@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("cancelled", 130)])
async def test_the_exit_code_tells_how_the_turn_ended(
    script: ScriptedApi, chat: Chat, status: str, code: int
) -> None:
    script.script = [ScriptedTurn([step(1), done("", status=status)])]
    assert await chat(message="6*7?") == code


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_the_address_is_the_one_that_the_stack_wrote_down(
    script: ScriptedApi, chat: Chat, url: str, home: Path
) -> None:
    (home / "addresses.json").write_text(json.dumps({"api": url}))
    script.script = [ScriptedTurn([done("")])]
    assert await chat(url=None, message="Hello") == 0
    assert len(script.sent) == 1


async def test_an_address_where_nothing_answers_is_one_line(
    chat: Chat, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTURN_EMAIL", EMAIL)
    monkeypatch.setenv("EVERTURN_PASSWORD", PASSWORD)
    assert await chat(url="127.0.0.1:1", message="Hello") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Nothing answers at http://127.0.0.1:1. Start it with `make dev`")


async def test_a_script_without_credentials_is_told_what_to_set(
    chat: Chat, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert await chat(message="Hello") == 1
    assert "EVERTURN_EMAIL and EVERTURN_PASSWORD" in capsys.readouterr().err


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_a_wrong_password_is_refused_and_never_printed(
    chat: Chat, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setenv("EVERTURN_PASSWORD", "wrong secret")
    assert await chat(message="Hello") == 1
    output = capsys.readouterr()
    assert output.err == "The e-mail and the password do not fit an account.\n"
    assert "wrong secret" not in output.out


async def test_tokens_are_kept_for_their_owner_alone_and_used_again(
    script: ScriptedApi, chat: Chat, api: ApiClient
) -> None:
    assert stat.S_IMODE(credentials_path().stat().st_mode) == 0o600
    script.script = [ScriptedTurn([done("")])]
    script.accounts.clear()  # signing in anew would fail
    script.expire_access_tokens()
    assert await chat(message="Hello") == 0
    assert script.refreshes == 1
    assert "access-" not in repr(api.credentials.load())


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_a_session_that_has_ended_is_begun_anew(
    script: ScriptedApi, chat: Chat, api: ApiClient
) -> None:
    script.script = [ScriptedTurn([done("")])]
    script.end_sessions()
    assert await chat(message="Hello") == 0
    assert api.credentials.load() is not None


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_the_prompt_serves_commands_and_messages_until_the_input_ends(
    script: ScriptedApi,
    chat: Chat,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script.chats = [{"id": "c-2", "title": "Trains"}, {"id": "c-1", "title": "Rivers"}]
    script.history = [
        {"id": "2", "role": "assistant", "content": "Deep."},
        {"id": "1", "role": "user", "content": "How deep?"},
    ]
    script.script = [ScriptedTurn([done(text)]) for text in ("one", "two", "three")]
    typed = "/chats\nfirst\n/open 2\nsecond\n/open 9\n/nowhere\n/new\nthird\n/help\n/quit\nnever\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert await chat() == 0
    output = capsys.readouterr()
    assert output.out == "one\ntwo\nthree\n"
    assert [sent.chat_id for sent in script.sent] == ["c-2", "c-1", script.chats[0]["id"]]
    lines = output.err.splitlines()
    assert lines[:3] == ["Trains · /help lists the commands", "  1  Trains", "  2  Rivers"]
    assert lines[lines.index("> How deep?") + 1] == "Deep."
    assert "There is no command /nowhere; /help lists them." in lines
    assert any(line.startswith("/open N ") for line in lines)


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_a_chat_that_does_not_exist_is_one_line(
    chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await chat(chat_id="c-9", message="Hello") == 1
    assert capsys.readouterr().err == "There is no such chat. (NOT_FOUND)\n"


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_the_prompt_goes_on_after_a_busy_chat(
    script: ScriptedApi,
    chat: Chat,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script.refusals = [failure(409, "TURN_IN_PROGRESS", "A turn is in progress.", retryable=True)]
    script.script = [ScriptedTurn([done("free")])]
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nhello\n"))
    assert await chat() == 0
    output = capsys.readouterr()
    assert output.out == "free\n"
    assert "A turn is in progress. (TURN_IN_PROGRESS)" in output.err


@pytest.fixture
async def terminal(url: str, home: Path) -> AsyncIterator[Terminal]:
    async with open_terminal(url, home) as opened:
        yield opened


async def test_a_person_signs_up_stops_an_answer_and_leaves(
    script: ScriptedApi, terminal: Terminal
) -> None:
    script.script = [unfinished_turn()]
    await terminal.shows(lambda text: text.endswith("E-mail: "))
    terminal.type("grace@example.com\n")
    await terminal.shows(lambda text: text.endswith("Password: "))
    terminal.type("hopper hopper\n")
    await terminal.shows(lambda text: text.endswith("[y/N] "))
    terminal.type("y\n")
    await terminal.prompts(times=1)
    terminal.type("Tell me a story.\n")
    await terminal.shows(lambda text: "Once upon" in text)
    terminal.type("\x03")
    await terminal.prompts(times=2)
    terminal.type("\x04")
    assert await terminal.exit_code() == 0
    assert script.accounts["grace@example.com"] == "hopper hopper"
    assert "hopper hopper" not in terminal.text
    assert len(script.cancelled) == 1
    assert "Once upon a\nscripted-model · stopped · 812 in, 96 out · $0.0012\n" in terminal.text


async def test_a_second_interrupt_leaves_the_terminal_at_once(
    script: ScriptedApi, terminal: Terminal
) -> None:
    script.script = [ScriptedTurn([step(1), delta(1, "Once upon")])]
    script.accounts = {EMAIL: PASSWORD}
    await terminal.shows(lambda text: text.endswith("E-mail: "))
    terminal.type(f"{EMAIL}\n")
    await terminal.shows(lambda text: text.endswith("Password: "))
    terminal.type(f"{PASSWORD}\n")
    await terminal.prompts(times=1)
    terminal.type("Tell me a story.\n")
    await terminal.shows(lambda text: "Once upon" in text)
    terminal.type("\x03")
    await terminal.shows(lambda text: "stopping…" in text)
    terminal.type("\x03")
    assert await terminal.exit_code() == 130


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_an_interrupt_at_the_prompt_leaves_it(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_keyboard: Keyboard, _prompt: str) -> str | None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Keyboard, "ask", ask)
    assert await chat() == 0


async def test_the_end_of_the_input_leaves_the_prompt(
    script: ScriptedApi, chat: Chat, monkeypatch: pytest.MonkeyPatch, api: ApiClient
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert await chat() == 0
    assert script.sent == []


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_a_session_that_ends_during_the_conversation_is_begun_anew(
    script: ScriptedApi, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["Hello"])

    def ask(_keyboard: Keyboard, _prompt: str) -> str | None:
        script.end_sessions()
        return next(typed, None)

    script.script = [ScriptedTurn([done("")])]
    monkeypatch.setattr(Keyboard, "ask", ask)
    assert await chat() == 0
    assert len(script.sent) == 1


async def test_plain_output_of_a_turn_that_was_cut_is_exact(
    script: ScriptedApi, api: ApiClient
) -> None:
    events = [step(1), delta(1, "Let me see. "), step(2), delta(2, "42"), done("Let me see. 42")]
    script.script, script.cuts = [ScriptedTurn(events)], [1, 1, 1, 1]
    answers, lines = io.StringIO(), io.StringIO()
    screen = PlainScreen(answers=answers, lines=lines)
    message = OutgoingMessage("chat-1", "6*7?")
    assert await Answering(api, screen, message, patience=eager()).run() is TurnOutcome.COMPLETED
    assert answers.getvalue() == "Let me see. 42\n"
