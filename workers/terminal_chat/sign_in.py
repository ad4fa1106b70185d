"""Signing in: with kept tokens, then from the environment, then by asking."""

import os

from pydantic import SecretStr

from everturn_client import APIStatusError, AuthenticationError
from workers.terminal_chat.credentials import TerminalError
from workers.terminal_chat.session import Session, sentence_of

_TRIES = 3
_SIGN_UP_HINT = "To create an account, run `everturn chat --sign-up`."


class SignInError(TerminalError):
    """Signing in is not possible; the text says what would help."""


class SignIn:
    """Signs in to one API, asking as little as possible.

    The API does not say whether an email has an account, so an account is created only on request:
    with `sign_up`, or where the person leaves the email empty.
    """

    def __init__(self, session: Session, *, email: str | None, sign_up: bool = False) -> None:
        self._client = session.client
        self._credentials = session.credentials
        self._screen = session.screen
        self._keyboard = session.keyboard
        self._email = email or os.environ.get("EVERTURN_EMAIL")
        self._sign_up = sign_up

    def ensure(self) -> None:
        """Use the kept tokens where they are this person's and valid, or else sign in.

        Errors: SignInError where there is no person to ask, and those of the client.
        """
        if self._sign_up:
            return self._create_account()
        kept = self._credentials.email
        if kept is not None and self._email in {None, kept}:
            try:
                self._client.auth.me()
            except AuthenticationError as error:
                self._screen.line(sentence_of(error))
            else:
                return None
        return self.sign_in()

    def sign_in(self) -> None:
        """Sign in as the environment or the person says, in at most three tries.

        Errors: SignInError.
        """
        email = self._email or self._ask_email()
        if email is None:
            return self._create_account()
        for _ in range(_TRIES):
            try:
                self._client.auth.login(email=email, password=self._password())
            except AuthenticationError:
                if self._password_is_given or not self._keyboard.attended:
                    break
                self._screen.line("Wrong email or password.")
            else:
                return None
        raise SignInError(f"Wrong email or password. {_SIGN_UP_HINT}")

    def _create_account(self) -> None:
        for _ in range(_TRIES):
            email = self._email or self._require(self._keyboard.ask("Email of the new account: "))
            password = self._password()
            if not self._password_is_given and not self._repeated(password):
                self._screen.line("The passwords differ.")
                continue
            try:
                self._client.auth.signup(email=email, password=password)
            except APIStatusError as error:
                if self._password_is_given or not 400 <= error.status_code < 500:
                    raise
                self._screen.line(str(error), style="red")
            else:
                return
        raise SignInError("No account was created.")

    def _ask_email(self) -> str | None:
        """Return what is typed, or None where the person wants a new account."""
        self._require_person()
        typed = self._keyboard.ask("Email (leave empty to create an account): ")
        if typed is None:
            raise SignInError("Not signed in.")
        return typed.strip() or None

    @property
    def _password_is_given(self) -> bool:
        return bool(os.environ.get("EVERTURN_PASSWORD"))

    def _password(self) -> SecretStr:
        if password := os.environ.get("EVERTURN_PASSWORD"):
            return SecretStr(password)
        self._require_person()
        return self._keyboard.ask_secret("Password: ")

    def _repeated(self, password: SecretStr) -> bool:
        return self._keyboard.ask_secret("Repeat the password: ") == password

    def _require(self, typed: str | None) -> str:
        self._require_person()
        if not (typed or "").strip():
            raise SignInError("Not signed in.")
        return (typed or "").strip()

    def _require_person(self) -> None:
        if not self._keyboard.attended:
            raise SignInError("Set EVERTURN_EMAIL and EVERTURN_PASSWORD to sign in.")
