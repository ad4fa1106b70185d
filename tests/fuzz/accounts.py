"""The accounts that fuzzing speaks as, and what exists for each of them.

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
_PATIENCE_S: Final = 20.0


class Actor(StrEnum):
    """Who asks."""

    NOBODY = "nobody"
    MEMBER = "member"
    ADMINISTRATOR = "administrator"

    def may_ask(self, operation: Operation) -> bool:
        """Return whether there is more than a refusal."""
        if operation.is_for_administrators:
            return self is Actor.ADMINISTRATOR
        return self is not Actor.NOBODY or not operation.is_secured


def asker_of(operation: Operation) -> Actor:
    """Return who gets furthest with an operation."""
    return next(actor for actor in (Actor.MEMBER, Actor.ADMINISTRATOR) if actor.may_ask(operation))


class Account:
    """Somebody who can sign in; nobody has neither a token nor anything else."""

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
        """What proves who it is; signs in anew before the token is too old."""
        if self.actor is Actor.NOBODY:
            return {}
        if time.monotonic() - self._signed_in_at > _TOKEN_LASTS_S:
            self._sign_in()
        return {"Authorization": f"Bearer {self._token}"}

    def send(self, case: GeneratedCase) -> httpx.Response | None:
        """Send a request for what comes of it; None where there is no answer."""
        make_harmless(case)
        if isinstance(case.body, dict) and "stream" in case.body:
            case.body["stream"] = False
        response = case.call(self._origin, headers=self.headers, timeout=_PATIENCE_S)
        return httpx.Response(response.status_code, content=response.content)

    def _sign_in(self) -> None:
        body = {"email": self._email, "password": PASSWORD}
        response = httpx.post(f"{self._origin}/api/v1/auth/login", json=body, trust_env=False)
        assert response.status_code == 200, response.text
        session = response.json()["data"]
        self.user_id, self._token = session["user"]["id"], session["accessToken"]
        self._signed_in_at = time.monotonic()


class Accounts:
    """Makes accounts. `promote` makes the account of an e-mail address an administrator's."""

    def __init__(self, origin: str, promote: Callable[[str], None]) -> None:
        self.origin = origin
        self._promote = promote
        self._spared: set[str] = set()
        self._lasting: dict[Actor, Account] = {}
        self._stranger: Account | None = None

    def stranger(self) -> Account:
        """Return a member whose things are not those of any other account."""
        if self._stranger is None:
            self._stranger = self._furnished(Actor.MEMBER)
        return self._stranger

    def of(self, actor: Actor, operation: Operation) -> Account:
        """Return who asks for an operation: somebody new for what uses up or ends accounts."""
        if operation.uses_up and actor is not Actor.NOBODY:
            return self._furnished(actor)
        if actor not in self._lasting:
            self._lasting[actor] = self._furnished(actor)
        return self._lasting[actor]

    def bare(self, actor: Actor) -> Account:
        """Return a new account that has nothing."""
        if actor is Actor.NOBODY:
            return Account(self.origin, actor, "", self.stranger().things)
        email = f"{uuid.uuid4().hex}@example.com"
        body = {"email": email, "password": PASSWORD}
        response = httpx.post(f"{self.origin}/api/v1/auth/signup", json=body, trust_env=False)
        assert response.status_code == 201, response.text
        if actor is Actor.ADMINISTRATOR:
            self._promote(email)
        account = Account(self.origin, actor, email, Things(spared=self._spared))
        account._sign_in()
        return account

    def _furnished(self, actor: Actor) -> Account:
        account = self.bare(actor)
        if actor is Actor.NOBODY:
            return account
        self._spared.add(account.user_id)
        victim = self.bare(Actor.MEMBER)
        account.things.learn("/users", {"data": {"id": victim.user_id}})
        furnish(account)
        return account


def furnish(account: Account) -> None:
    """Create one of everything, and look through the lists."""
    creating = [each for each in operations() if each.method == "POST" and each.is_secured]
    listing = [each for each in operations() if each.method == "GET" and each.is_secured]
    creating.sort(key=lambda each: (len(parameters_of(each.path)), len(each.path)))
    for operation in (*creating, *listing):
        allowed = account.actor is Actor.ADMINISTRATOR or not operation.is_for_administrators
        if allowed and not operation.ends_accounts and not operation.path.endswith("/events"):
            _try_out(account, operation)


def _try_out(account: Account, operation: Operation) -> None:
    """Ask until there is a success, and learn from it."""
    known = {
        name: account.things.values(operation.path, name) for name in parameters_of(operation.path)
    }
    if not all(known.values()):
        return
    for case in operation.valid_cases(most=4):
        case.path_parameters = {name: values[0] for name, values in known.items()}
        response = account.send(case)
        if response is not None and response.is_success:
            with suppress(ValueError):  # no JSON: a file, or nothing
                account.things.learn(operation.path, response.json())
            return
