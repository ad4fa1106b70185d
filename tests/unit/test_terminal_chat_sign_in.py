"""Signing in at the terminal: the questions, the attempts, and when an account is created."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from everturn_client import ConflictError, Everturn
from tests.fakes.scripted_api import ScriptedApi
from workers.terminal_chat.credentials import CredentialFile
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.screen import PlainScreen
from workers.terminal_chat.session import Session
from workers.terminal_chat.sign_in import SignIn, SignInError

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
ASK_EMAIL = "Email (leave empty to create an account): "


class Typist(Keyboard):
    """A person who gives prepared answers and remembers the questions."""

    attended = True

    def __init__(self, *answers: str) -> None:
        self.questions: list[str] = []
        self._answers = iter(answers)

    def ask(self, prompt: str) -> str | None:
        self.questions.append(prompt)
        return next(self._answers, None)

    def ask_secret(self, prompt: str) -> SecretStr:
        return SecretStr(self.ask(prompt) or "")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVERTURN_EMAIL", "EVERTURN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def script() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture
def session(script: ScriptedApi, tmp_path: Path) -> Iterator[Session]:
    application = httpx2.ASGITransport(script.application())

    async def answer(request: httpx2.Request) -> httpx2.Response:
        response = await application.handle_async_request(request)
        content = await response.aread()
        return httpx2.Response(response.status_code, headers=response.headers, content=content)

    transport = httpx2.MockTransport(lambda request: asyncio.run(answer(request)))
    file = CredentialFile(tmp_path / "credentials.json", url="http://everturn")
    client = Everturn(
        "http://everturn", token_store=file, http_client=httpx2.Client(transport=transport)
    )
    with client, (tmp_path / "lines").open("w") as lines:
        yield Session(client, file, PlainScreen(answers=lines, lines=lines), Typist())


def sign_in(
    session: Session, *typed: str, email: str | None = None, sign_up: bool = False
) -> list[str]:
    """Sign in with this input; return the questions that were asked."""
    typist = Typist(*typed)
    of_typist = Session(session.client, session.credentials, session.screen, typist)
    SignIn(of_typist, email=email, sign_up=sign_up).ensure()
    return typist.questions


def test_a_person_is_asked_for_email_and_password_once(session: Session) -> None:
    assert sign_in(session, EMAIL, PASSWORD) == [ASK_EMAIL, "Password: "]
    assert session.credentials.email == EMAIL
    assert sign_in(session) == []


def test_a_known_email_is_not_asked_for(session: Session) -> None:
    assert sign_in(session, PASSWORD, email=EMAIL) == ["Password: "]


def test_the_tokens_of_another_person_are_not_used(script: ScriptedApi, session: Session) -> None:
    sign_in(session, EMAIL, PASSWORD)
    script.accounts["grace@example.com"] = "hopper"
    assert sign_in(session, "hopper", email="grace@example.com") == ["Password: "]
    assert session.credentials.email == "grace@example.com"


def test_after_a_wrong_password_it_is_asked_for_again_without_offering_signup(
    script: ScriptedApi, session: Session
) -> None:
    questions = sign_in(session, EMAIL, "wrong", PASSWORD)

    assert questions == [ASK_EMAIL, "Password: ", "Password: "]
    assert session.credentials.email == EMAIL
    assert script.accounts == {EMAIL: PASSWORD}


def test_three_wrong_passwords_are_the_end_and_say_how_to_create_an_account(
    script: ScriptedApi, session: Session
) -> None:
    with pytest.raises(SignInError, match=r"Wrong email or password\. .* --sign-up"):
        sign_in(session, *["wrong"] * 4, email="grace@example.com")
    assert "grace@example.com" not in script.accounts


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        (("", "grace@example.com", "hopper", "hopper"), {}),
        (("grace@example.com", "hopper", "hopper"), {"sign_up": True}),
        (("hopper", "hopper"), {"sign_up": True, "email": "grace@example.com"}),
    ],
)
def test_an_account_is_created_on_request(
    script: ScriptedApi, session: Session, typed: tuple[str, ...], options: dict[str, object]
) -> None:
    sign_in(session, *typed, **options)  # type: ignore[arg-type]  # both kinds of options

    assert script.accounts["grace@example.com"] == "hopper"
    assert session.credentials.email == "grace@example.com"


def test_a_new_password_is_typed_twice(script: ScriptedApi, session: Session) -> None:
    sign_in(session, "g@x.org", "hopper", "hoper", "g@x.org", "hopper", "hopper", sign_up=True)

    assert script.accounts["g@x.org"] == "hopper"


def test_an_account_that_exists_is_not_created_again(script: ScriptedApi, session: Session) -> None:
    with pytest.raises(SignInError, match="No account was created"):
        sign_in(session, *[EMAIL, "other", "other"] * 3, sign_up=True)
    assert script.accounts == {EMAIL: PASSWORD}


def test_a_script_creates_an_account_from_its_environment(
    script: ScriptedApi, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTURN_EMAIL", "grace@example.com")
    monkeypatch.setenv("EVERTURN_PASSWORD", "hopper")

    assert sign_in(session, sign_up=True) == []

    assert script.accounts["grace@example.com"] == "hopper"
    with pytest.raises(ConflictError):
        sign_in(session, sign_up=True)


def test_the_end_of_the_input_does_not_sign_in(session: Session) -> None:
    with pytest.raises(SignInError, match="Not signed in"):
        sign_in(session)


def test_an_expired_session_asks_for_the_credentials_again(
    script: ScriptedApi, session: Session
) -> None:
    sign_in(session, EMAIL, PASSWORD)
    script.end_sessions()
    assert sign_in(session, EMAIL, PASSWORD) == [ASK_EMAIL, "Password: "]
