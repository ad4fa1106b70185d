"""Owns asking the person: lines, secrets, and whether there is a person at all."""

import contextlib
import getpass
import importlib
import os
import sys

from pydantic import SecretStr


class Keyboard:
    """The standard input."""

    def __init__(self) -> None:
        if self.attended and sys.stdout.isatty():
            # Importing it gives `input` line editing and a history. Elsewhere it is left alone,
            # since some versions write a control code to the output as they load.
            with contextlib.suppress(ImportError):  # Windows has none
                importlib.import_module("readline")

    @property
    def attended(self) -> bool:
        """Whether a person can answer questions."""
        return sys.stdin.isatty()

    def ask(self, prompt: str) -> str | None:
        """Return the next line, or None at the end of the input."""
        try:
            return input(self._visible(prompt))
        except EOFError:
            return None

    def ask_secret(self, prompt: str) -> SecretStr:
        """Return a line that is not shown while it is typed; empty at the end of the input."""
        try:
            return SecretStr(getpass.getpass(prompt))
        except EOFError:
            return SecretStr("")

    def _visible(self, prompt: str) -> str:
        """Keep the prompt out of an output or a transcript that nobody answers from."""
        if not self.attended:
            return ""
        if sys.stdout.isatty():
            return prompt
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return ""


def email_from_environment() -> str | None:
    """Return the e-mail that a script signs in with."""
    return os.environ.get("EVERTURN_EMAIL")


def password_from_environment() -> SecretStr | None:
    """Return the password that a script signs in with."""
    password = os.environ.get("EVERTURN_PASSWORD")
    return SecretStr(password) if password else None
