"""Owns becoming signed in: kept tokens first, then the environment, then the person."""

import httpx2
from pydantic import SecretStr

from workers.terminal_chat.errors import ApiError, SignedOutError, SignInError
from workers.terminal_chat.keyboard import email_from_environment, password_from_environment
from workers.terminal_chat.session import Session

_TRIES = 3


class SignIn:
    """Signs in at one address, asking as little as possible."""

    def __init__(self, session: Session, *, email: str | None) -> None:
        self._session = session
        self._api = session.api
        self._screen = session.screen
        self._keyboard = session.keyboard
        self._email = email or email_from_environment()

    def ensure(self) -> None:
        """Use the kept tokens where they are this person's and accepted, or else sign in.

        Errors: SignInError where nobody can be asked, and those of the API's requests.
        """
        kept = self._api.credentials.load()
        if kept is not None and self._email in {None, kept.email}:
            try:
                self._session.wait_for(self._api.check_sign_in())
            except SignedOutError:
                self._screen.line("You are not signed in any more.")
            else:
                return
        self.sign_in()

    def sign_in(self) -> None:
        """Sign in with what the environment or the person says, three tries at most.

        Errors: SignInError.
        """
        for _ in range(_TRIES):
            email, password = self._email or self._ask_email(), self._password()
            if self._logged_in(email, password) or self._signed_up(email, password):
                return
            if not self._keyboard.attended or password_from_environment() is not None:
                break
        raise SignInError("The e-mail and the password do not fit an account.")

    def _logged_in(self, email: str, password: SecretStr) -> bool:
        try:
            self._session.wait_for(self._api.log_in(email=email, password=password))
        except ApiError as error:
            if error.status != httpx2.codes.UNAUTHORIZED:
                raise
            return False
        return True

    def _signed_up(self, email: str, password: SecretStr) -> bool:
        """Offer an account, since the API does not tell a wrong password from a new e-mail."""
        if not self._keyboard.attended:
            return False
        question = f"No account fits. Create one for {email}? [y/N] "
        if (self._keyboard.ask(question) or "").strip().lower() not in {"y", "yes"}:
            return False
        try:
            self._session.wait_for(self._api.sign_up(email=email, password=password))
        except ApiError as error:
            self._screen.line(str(error), style="red")
            return False
        return True

    def _ask_email(self) -> str:
        self._require_person()
        email = (self._keyboard.ask("E-mail: ") or "").strip()
        if not email:
            raise SignInError("Not signed in.")
        return email

    def _password(self) -> SecretStr:
        if (password := password_from_environment()) is not None:
            return password
        self._require_person()
        return self._keyboard.ask_secret("Password: ")

    def _require_person(self) -> None:
        if not self._keyboard.attended:
            raise SignInError("Sign in by setting EVERTURN_EMAIL and EVERTURN_PASSWORD.")
