"""The accounts of fuzzing, and the resources of each.

Everything here blocks: it runs in a thread beside the event loop that serves the API.
"""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Final

import httpx

from tests.fixtures.api_user import PASSWORD
from tests.fuzz.harmless import make_harmless
from tests.fuzz.operations import GeneratedCase, Operation, operations
from tests.fuzz.things import Things, parameters_of

_TOKEN_LASTS_S: Final = 300.0
_TIMEOUT_S: Final = 60.0


class Actor(StrEnum):
    """The kind of caller."""

    ANONYMOUS = "anonymous"
    MEMBER = "member"
    ADMINISTRATOR = "administrator"

    def may_ask(self, operation: Operation) -> bool:
        """Return whether the operation is allowed."""
        if operation.is_for_administrators:
            return self is Actor.ADMINISTRATOR
        return self is not Actor.ANONYMOUS or not operation.is_secured


def asker_of(operation: Operation) -> Actor:
    """Return the least privileged actor that may use an operation."""
    return next(actor for actor in (Actor.MEMBER, Actor.ADMINISTRATOR) if actor.may_ask(operation))


class Account:
    """An account that can sign in; the anonymous one has no token."""

    def __init__(self, origin: str, actor: Actor, email: str, things: Things) -> None:
        self.actor = actor
        self.things = things
        self.user_id = ""
        self._origin = origin
        self._email = email
        self._token = ""
        self._signed_in_at = float("-inf")

    @property
    def headers(self) -> dict[str, str]:
        """The authorization; signs in again before the token expires."""
        if self.actor is Actor.ANONYMOUS:
            return {}
        if time.monotonic() - self._signed_in_at > _TOKEN_LASTS_S:
            self._sign_in()
        return {"Authorization": f"Bearer {self._token}"}

    def send(self, case: GeneratedCase) -> httpx.Response | None:
        """Send a request for its effect; None without a response."""
        make_harmless(case)
        if isinstance(case.body, dict) and "stream" in case.body:
            case.body["stream"] = False
        response = case.call(self._origin, headers=self.headers, timeout=_TIMEOUT_S)
        return httpx.Response(response.status_code, content=response.content)

    def is_usable(self) -> bool:
        """Return whether it can still sign in and has kept its role."""
        response = self._log_in()
        if not response.is_success:
            return False
        role: str = response.json()["data"]["user"]["role"]
        return (role == "admin") is (self.actor is Actor.ADMINISTRATOR)

    def forget_token(self) -> None:
        """Sign in again before the next request: an operation may have ended the sign-in."""
        self._signed_in_at = float("-inf")

    def _log_in(self) -> httpx.Response:
        body = {"email": self._email, "password": PASSWORD}
        return _post(f"{self._origin}/api/v1/auth/login", body)

    def _sign_in(self) -> None:
        response = self._log_in()
        assert response.status_code == 200, response.text
        session = response.json()["data"]
        self.user_id, self._token = session["user"]["id"], session["accessToken"]
        self._signed_in_at = time.monotonic()


class Accounts:
    """Creates accounts. `promote` turns the account of an e-mail address into an administrator."""

    def __init__(self, origin: str, promote: Callable[[str], None]) -> None:
        self.origin = origin
        self._promote = promote
        self._spared: set[str] = set()
        self._lasting: dict[Actor, Account] = {}
        self._expendable: dict[Actor, Account] = {}
        self._stranger: Account | None = None

    def stranger(self) -> Account:
        """Return a member who shares no resources with any other account."""
        if self._stranger is None:
            self._stranger = self._furnished(Actor.MEMBER)
        return self._stranger

    def of(self, actor: Actor, operation: Operation) -> Account:
        """Return the caller of an operation: a new account if it may delete something.

        The new account has only what is deleted. Operations that may end accounts, or delete the
        account itself, share one until it is ended; others never see that one.
        """
        may_delete = operation.method == "DELETE" and actor.may_ask(operation)
        if may_delete and not operation.deletes_accounts:
            return self._furnished(actor, below=operation.path.partition("/{")[0])
        if actor is not Actor.ANONYMOUS and operation.ends_accounts:
            account = self._expendable.get(actor)
            if account is None or not account.is_usable():
                account = self._expendable[actor] = self._furnished(actor)
            account.forget_token()
            return account
        if actor not in self._lasting:
            self._lasting[actor] = self._furnished(actor)
        return self._lasting[actor]

    def bare(self, actor: Actor) -> Account:
        """Return a new account without resources."""
        if actor is Actor.ANONYMOUS:
            return Account(self.origin, actor, "", self.stranger().things)
        email = f"{uuid.uuid4().hex}@example.com"
        body = {"email": email, "password": PASSWORD}
        response = _post(f"{self.origin}/api/v1/auth/signup", body)
        assert response.status_code == 201, response.text
        if actor is Actor.ADMINISTRATOR:
            self._promote(email)
        account = Account(self.origin, actor, email, Things(spared=self._spared))
        account._sign_in()
        return account

    def _furnished(self, actor: Actor, *, below: str = "") -> Account:
        account = self.bare(actor)
        if actor is Actor.ANONYMOUS:
            return account
        self._spared.add(account.user_id)
        victim = self.bare(Actor.MEMBER)
        account.things.learn("/users", {"data": {"id": victim.user_id}})
        furnish(account, below=below)
        return account


def _post(url: str, body: dict[str, str]) -> httpx.Response:
    # Reading certificates, which nothing here has, would take 20 ms each time.
    return httpx.post(url, json=body, timeout=_TIMEOUT_S, trust_env=False, verify=False)


def furnish(account: Account, *, below: str) -> None:
    """Create one resource of each kind below a path, and read the lists there."""
    known = [each for each in operations() if each.is_secured and each.path.startswith(below)]
    creating = [each for each in known if each.method == "POST"]
    listing = [each for each in known if each.method == "GET"]
    creating.sort(key=lambda each: (len(parameters_of(each.path)), len(each.path)))
    for operation in (*creating, *listing):
        allowed = account.actor is Actor.ADMINISTRATOR or not operation.is_for_administrators
        if allowed and not operation.ends_accounts and not operation.path.endswith("/events"):
            _try_out(account, operation)


def _try_out(account: Account, operation: Operation) -> None:
    """Send valid requests until one succeeds, and learn from it."""
    known = {
        name: account.things.values(operation.path, name) for name in parameters_of(operation.path)
    }
    if not all(known.values()):
        return
    for case in operation.valid_cases(most=4):
        case.path_parameters = {name: values[0] for name, values in known.items()}
        response = account.send(case)
        if response is not None and response.is_success:
            with suppress(ValueError):  # not JSON: a file, or empty
                account.things.learn(operation.path, response.json())
            return
