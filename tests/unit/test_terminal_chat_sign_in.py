from asyncio import Runner
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from tests.fakes.scripted_api import ScriptedApi
from workers.terminal_chat.api_client import ApiClient
from workers.terminal_chat.credentials import CredentialFile
from workers.terminal_chat.errors import SignInError
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.plain_screen import PlainScreen
from workers.terminal_chat.session import Session
from workers.terminal_chat.sign_in import SignIn

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"


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
    file = CredentialFile(tmp_path / "credentials.json", url="http://everturn")
    transport = httpx2.ASGITransport(script.application())
    api = ApiClient("http://everturn", file, transport=transport)
    with Runner() as runner, (tmp_path / "lines").open("w") as lines:
        yield Session(api, PlainScreen(answers=lines, lines=lines), Typist(), runner)
        runner.run(api.aclose())


def sign_in(session: Session, *typed: str, email: str | None = None) -> list[str]:
    """Sign in with what is typed; return the questions that were asked."""
    typist = Typist(*typed)
    SignIn(Session(session.api, session.screen, typist, session.runner), email=email).ensure()
    return typist.questions


def signed_in_as(session: Session) -> str | None:
    credentials = session.api.credentials.load()
    return credentials.email if credentials else None


def test_a_person_is_asked_for_e_mail_and_password_once(session: Session) -> None:
    assert sign_in(session, EMAIL, PASSWORD) == ["E-mail: ", "Password: "]
    assert signed_in_as(session) == EMAIL
    assert sign_in(session) == []


def test_a_known_e_mail_is_not_asked_for(session: Session) -> None:
    assert sign_in(session, PASSWORD, email=EMAIL) == ["Password: "]


def test_the_tokens_of_another_person_are_not_used(script: ScriptedApi, session: Session) -> None:
    sign_in(session, EMAIL, PASSWORD)
    script.accounts["grace@example.com"] = "hopper"
    assert sign_in(session, "hopper", email="grace@example.com") == ["Password: "]
    assert signed_in_as(session) == "grace@example.com"


def test_an_unknown_e_mail_is_offered_an_account(script: ScriptedApi, session: Session) -> None:
    questions = sign_in(session, "grace@example.com", "hopper", "y")
    assert questions[-1] == "No account fits. Create one for grace@example.com? [y/N] "
    assert script.accounts["grace@example.com"] == "hopper"
    assert signed_in_as(session) == "grace@example.com"


def test_a_wrong_password_can_be_typed_again(session: Session) -> None:
    sign_in(session, EMAIL, "wrong", "n", EMAIL, PASSWORD)
    assert signed_in_as(session) == EMAIL


def test_an_account_that_exists_is_not_created_again(session: Session) -> None:
    sign_in(session, EMAIL, "wrong", "y", EMAIL, PASSWORD)
    assert signed_in_as(session) == EMAIL


def test_three_wrong_passwords_are_the_end(session: Session) -> None:
    with pytest.raises(SignInError, match="do not fit an account"):
        sign_in(session, *("wrong", "n") * 4, email=EMAIL)


def test_leaving_the_e_mail_empty_signs_nobody_in(session: Session) -> None:
    with pytest.raises(SignInError, match="Not signed in"):
        sign_in(session)


def test_a_session_that_has_ended_is_asked_for_again(script: ScriptedApi, session: Session) -> None:
    sign_in(session, EMAIL, PASSWORD)
    script.end_sessions()
    assert sign_in(session, EMAIL, PASSWORD) == ["E-mail: ", "Password: "]
