"""The terminal client as a person or a script runs it: signing in, the prompt, how it ends."""

import asyncio
import io
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from everturn_client import AsyncEverturn
from tests.fakes.scripted_api import (
    ScriptedApi,
    ScriptedEvent,
    ScriptedTurn,
    delta,
    done,
    failure,
    message,
    serving,
    step,
)
from tests.fakes.scripted_api import chat as stored_chat
from tests.fixtures.terminal_chat import Terminal, open_terminal
from tests.fixtures.terminal_session import (
    ANSWER,
    EMAIL,
    PASSWORD,
    credentials_of,
    credentials_path,
    move_to,
    signed_in,
    unfinished_turn,
)
from workers.terminal_chat.command import run_chat
from workers.terminal_chat.credentials import CredentialFile, CredentialFileError
from workers.terminal_chat.keyboard import Keyboard


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


@pytest.fixture
def signed_in_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTURN_EMAIL", EMAIL)
    monkeypatch.setenv("EVERTURN_PASSWORD", PASSWORD)


Chat = Callable[..., Awaitable[int]]


@pytest.fixture
def chat(url: str, home: Path) -> Chat:
    """Run the command in a thread, since it runs a loop of its own."""

    def run(**options: Any) -> Awaitable[int]:  # noqa: ANN401
        defaults = {
            "email": None,
            "sign_up": False,
            "chat_id": None,
            "new": False,
            "model": None,
            "message": None,
        }
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
    assert len(script.chats) == 1


@pytest.mark.usefixtures("signed_in_by_environment")
@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("cancelled", 130)])
async def test_the_exit_code_reflects_how_the_turn_ended(
    script: ScriptedApi, chat: Chat, status: str, code: int
) -> None:
    script.script = [ScriptedTurn([step(1), done("", status=status)])]
    assert await chat(message="6*7?") == code


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_a_budget_without_anything_left_is_a_sentence(
    script: ScriptedApi, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "You have no daily budget left. It resets on 2026-12-01 00:00 UTC."
    details = {"scope": "user", "unit": "usd", "window": "day", "resetsAt": "2026-12-01T00:00:00Z"}
    script.refusals = [failure(402, "BUDGET_EXCEEDED", sentence, details=details)]
    assert await chat(message="6*7?") == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"{sentence}\n")
    assert len(script.sent) == 1


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_a_turn_that_used_up_its_budget_keeps_its_text_and_says_why(
    script: ScriptedApi, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "You have no monthly budget left. It resets on 2026-12-01 00:00 UTC."
    error = {"code": "BUDGET_EXCEEDED", "message": sentence, "retryable": False}
    events: list[ScriptedEvent] = [
        *(step(1), delta(1, "So far.")),
        *(("error", error), done("So far.", status="failed")),
    ]
    script.script = [ScriptedTurn(events)]
    assert await chat(message="6*7?") == 1
    output = capsys.readouterr()
    assert output.out == "So far.\n"
    assert f"✗ {sentence} (BUDGET_EXCEEDED)\n" in output.err


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_the_address_is_the_one_that_the_stack_wrote_down(
    script: ScriptedApi, chat: Chat, url: str, home: Path
) -> None:
    (home / "addresses.json").write_text(json.dumps({"api": url}))
    script.script = [ScriptedTurn([done("")])]
    assert await chat(url=None, message="Hello") == 0
    assert len(script.sent) == 1


async def test_an_unreachable_url_is_reported_in_one_line(
    chat: Chat, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTURN_EMAIL", EMAIL)
    monkeypatch.setenv("EVERTURN_PASSWORD", PASSWORD)
    assert await chat(url="127.0.0.1:1", message="Hello") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Can't reach http://127.0.0.1:1. Start it with `make dev`")


async def test_a_script_without_credentials_says_what_to_set(
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
    assert output.err.startswith("Wrong email or password. ")
    assert "wrong secret" not in output.out


async def test_tokens_are_readable_only_by_their_owner_and_reused(
    script: ScriptedApi, chat: Chat, api: AsyncEverturn, url: str
) -> None:
    assert stat.S_IMODE(credentials_path().stat().st_mode) == 0o600
    script.script = [ScriptedTurn([done("")])]
    script.accounts.clear()  # signing in again would fail
    script.expire_access_tokens()
    assert await chat(message="Hello") == 0
    assert script.refreshes == 1
    assert "access-" not in repr(credentials_of(url).load())


async def test_an_unwritable_token_file_is_reported_in_one_line(
    url: str, home: Path, api: AsyncEverturn
) -> None:
    (home / "taken").write_text("a file where a folder should be")
    file = CredentialFile(home / "taken" / "credentials.json", url=url)
    with pytest.raises(CredentialFileError, match="Can't store credentials"):
        file.save(await api.auth.login(email=EMAIL, password=PASSWORD))


async def test_an_unreadable_token_file_holds_no_tokens(url: str, home: Path) -> None:
    (home / "credentials.json").write_text("{")
    assert CredentialFile(home / "credentials.json", url=url).load() is None


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_a_session_that_has_ended_is_started_again(
    script: ScriptedApi, chat: Chat, api: AsyncEverturn, url: str
) -> None:
    script.script = [ScriptedTurn([done("")])]
    script.end_sessions()
    assert await chat(message="Hello") == 0
    assert credentials_of(url).email == EMAIL


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_the_prompt_serves_commands_and_messages_until_the_input_ends(
    script: ScriptedApi,
    chat: Chat,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script.chats = [stored_chat("Trains", "c-2"), stored_chat("Rivers", "c-1")]
    script.history = [message("assistant", "Deep.", id="2"), message("user", "How deep?", id="1")]
    script.script = [ScriptedTurn([done(text)]) for text in ("one", "two", "three")]
    typed = "/chats\nfirst\n/open 2\nsecond\n/open 9\n/nowhere\n/new\nthird\n/help\n/quit\nnever\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert await chat() == 0
    output = capsys.readouterr()
    assert output.out == "one\ntwo\nthree\n"
    assert [sent.chat_id for sent in script.sent] == ["c-2", "c-1", script.chats[0]["id"]]
    lines = output.err.splitlines()
    said = ["> How deep?", "Deep."]
    assert lines[:5] == ["Trains · /help lists the commands", *said, "  1  Trains", "  2  Rivers"]
    assert lines[lines.index("Rivers") + 1 :][:2] == said
    assert "Unknown command /nowhere; /help lists them." in lines
    assert any(line.startswith("/open N ") for line in lines)


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_an_unknown_chat_is_reported_in_one_line(
    chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await chat(chat_id="c-9", message="Hello") == 1
    assert capsys.readouterr().err == "Chat not found. (NOT_FOUND)\n"


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_the_prompt_continues_after_a_busy_chat(
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
    await terminal.shows(lambda text: text.endswith("create an account): "))
    terminal.type("\n")
    await terminal.shows(lambda text: text.endswith("Email of the new account: "))
    terminal.type("grace@example.com\n")
    await terminal.shows(lambda text: text.endswith("Password: "))
    terminal.type("hopper hopper\n")
    await terminal.shows(lambda text: text.endswith("Repeat the password: "))
    terminal.type("hopper hopper\n")
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
    await terminal.shows(lambda text: text.endswith("create an account): "))
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


async def test_lines_typed_during_an_answer_join_it_or_are_answered_next(
    script: ScriptedApi, terminal: Terminal
) -> None:
    story = ScriptedTurn([step(1), delta(1, "Once upon")])
    short = ScriptedTurn([done("")])
    late = ScriptedTurn([step(1), delta(1, "Dragons."), done("Dragons.")])
    script.script, script.accounts = [story, short, late], {EMAIL: PASSWORD}
    await terminal.shows(lambda text: text.endswith("create an account): "))
    terminal.type(f"{EMAIL}\n")
    await terminal.shows(lambda text: text.endswith("Password: "))
    terminal.type(f"{PASSWORD}\n")
    await terminal.prompts(times=1)
    terminal.type("Tell me a story.\n")
    await terminal.shows(lambda text: "Once upon" in text)
    terminal.type("A short one.\n")
    await terminal.shows(lambda text: "↪ A short one." in text)
    terminal.type("/quit\n")
    terminal.type("With what?\n")
    await terminal.shows(lambda text: "↪ With what?" in text)
    joined = {"step": 2, "messageId": "m", "turnId": short.id}
    more = [("message_joined", joined), step(2), delta(2, " a time."), done("Once upon a time.")]
    story.go_on(more)

    assert await terminal.exit_code() == 0
    assert [sent.body.get("ifBusy") for sent in script.sent] == [None, "steer", "steer"]
    assert terminal.text.rindex("Dragons.") > terminal.text.rindex("a time.")


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_an_interrupt_at_the_prompt_leaves_it(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_keyboard: Keyboard, _prompt: str) -> str | None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Keyboard, "ask", ask)
    assert await chat() == 0


async def test_the_end_of_the_input_leaves_the_prompt(
    script: ScriptedApi, chat: Chat, monkeypatch: pytest.MonkeyPatch, api: AsyncEverturn
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert await chat() == 0
    assert script.sent == []


@pytest.mark.usefixtures("signed_in_by_environment")
async def test_a_session_that_ends_during_the_conversation_is_started_again(
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
