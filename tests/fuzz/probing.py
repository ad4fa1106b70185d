"""Sends generated requests for one operation and checks the responses.

Blocks, as `accounts` does.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import quote

import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import CheckFunction, GenerationMode, Response
from schemathesis.core.parameters import ParameterLocation

from tests.fuzz.accounts import Accounts, Actor
from tests.fuzz.findings import CONFORMS, DOCUMENTED, Findings
from tests.fuzz.harmless import make_harmless
from tests.fuzz.operations import GeneratedCase, Operation
from tests.fuzz.things import parameters_of

SEED: Final = int(os.environ.get("EVERTURN_FUZZ_SEED", "0"))
"""What is generated follows from it alone: the same for every run of CI, another for each night."""

_TIMEOUT_S: Final = (10.0, 60.0)
_EITHER: Final[st.SearchStrategy[Any]] = st.booleans()
_OF_A_STRANGER: Final = 6
"""One in this number of existing ids belongs to another user."""


class Probe:
    """One operation, asked by one account."""

    def __init__(self, accounts: Accounts, actor: Actor, operation: Operation) -> None:
        self.operation = operation
        self.findings = Findings()
        self._accounts = accounts
        self._account = accounts.of(actor, operation)
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()

    @property
    def token(self) -> dict[str, str]:
        """The headers that prove who asks."""
        return self._account.headers

    def generate(self, examples: int, checks: Sequence[CheckFunction]) -> None:
        """Send requests that the description allows, and as many that it forbids."""
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            if mode is GenerationMode.NEGATIVE and not self.operation.takes_input:
                continue
            # A header without any constraint can't be made invalid.
            with suppress(Unsatisfiable):
                self._run(mode, (examples + 1) // 2, checks)

    def send(self, case: GeneratedCase, checks: Sequence[CheckFunction]) -> None:
        """Send a generated request."""
        make_harmless(case)
        try:
            response = case.call(
                self._accounts.origin,
                session=self._session,
                headers=self.token,
                timeout=_TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            self.findings.no_answer(error)
            return
        self._judge(case, response, checks)

    def send_to_existing(self, case: GeneratedCase, checks: Sequence[CheckFunction]) -> None:
        """Send a generated request, about what exists unless its ids are to be wrong."""
        if case.path_parameters and not _is_elsewhere(case):
            names = parameters_of(self.operation.path)
            case.path_parameters = {name: self._known(name)[0] for name in names}
        self.send(case, checks)

    def send_by_hand(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        query: str = "",
        headers: Mapping[str, str | bytes] | None = None,
        body: bytes | None = None,
        checks: Sequence[CheckFunction] = DOCUMENTED,
    ) -> Response | None:
        """Send a request unchanged; by default for existing resources, and with a valid body."""
        asked = path or self.existing_path()
        if body is None and self.operation.body_schema is not None:
            headers = {"Content-Type": "application/json", **(headers or {})}
        url = f"{self._accounts.origin}{asked}{query and '?'}{query}"
        try:
            answer = self._session.request(
                method or self.operation.method,
                url,
                headers=_as_bytes({**self.token, **(headers or {})}),
                data=self.valid_body() if body is None else body,
                timeout=_TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            self.findings.no_answer(error)
            return None
        response = Response.from_any(answer)
        self._judge(self.plain_case(), response, checks)
        return response

    def existing_path(self, **segments: str) -> str:
        """Return the path with ids of existing resources, except for the given segments."""
        path = self.operation.path
        for name in parameters_of(path):
            segment = segments.get(name) or quote(self._known(name)[0], safe="")
            path = path.replace("{" + name + "}", segment)
        return path

    def plain_case(self) -> GeneratedCase:
        """Return what stands for a request by hand where its answer is judged."""
        ids = dict.fromkeys(parameters_of(self.operation.path), "x")
        return self.operation.described.Case(path_parameters=ids)

    def valid_body(self) -> bytes | None:
        """Return a body that the description allows."""
        case = self.operation.valid_cases(most=1)[0]
        make_harmless(case)
        sent = case.as_transport_kwargs(self._accounts.origin)
        wanted = {name: sent[name] for name in ("json", "data", "files") if name in sent}
        body = requests.Request("POST", self._accounts.origin, **wanted).prepare().body
        return body.encode() if isinstance(body, str) else cast("bytes | None", body)

    def _run(self, mode: GenerationMode, examples: int, checks: Sequence[CheckFunction]) -> None:
        @seed(SEED)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(_requests(self.operation, mode, self._known))
        def ask(case: GeneratedCase) -> None:
            self.send(case, checks)

        ask()

    def _judge(
        self, case: GeneratedCase, response: Response, checks: Sequence[CheckFunction]
    ) -> None:
        self.findings.judge(case, response, _fitting(case, response, checks))
        done = response.request.method == self.operation.method and response.status_code < 300
        if done and self.operation.ends_accounts:
            self._account = self._accounts.of(self._account.actor, self.operation)

    def _known(self, name: str) -> list[str]:
        path = self.operation.path
        own = self._account.things.values(path, name)
        strange = self._accounts.stranger().things.values(path, name)[:1]
        return [*own[:_OF_A_STRANGER], *strange] or ["00000000-0000-4000-8000-000000000000"]


def _fitting(
    case: GeneratedCase, response: Response, checks: Sequence[CheckFunction]
) -> Sequence[CheckFunction]:
    """Return the checks that say something of an answer.

    What stands in the place of an id may make the path that of another route, or of none.
    """
    return CONFORMS if _is_elsewhere(case) and response.status_code in {404, 405} else checks


def _is_elsewhere(case: GeneratedCase) -> bool:
    return case.meta is not None and case.meta.is_negative_at(ParameterLocation.PATH)


@st.composite
def _requests(
    draw: st.DrawFn, operation: Operation, mode: GenerationMode, known: Callable[[str], list[str]]
) -> GeneratedCase:
    case: GeneratedCase = draw(operation.described.as_strategy(generation_mode=mode))
    names: list[str] = parameters_of(operation.path)
    if names and draw(_EITHER):
        ids = {name: st.sampled_from(known(name)) for name in names}
        case.path_parameters = draw(st.fixed_dictionaries(ids))
    if isinstance(case.body, dict) and isinstance(case.body.get("stream"), bool):
        case.body["stream"] = draw(st.integers(0, 3)) == 0
    return case


def _as_bytes(headers: Mapping[str, str | bytes]) -> dict[str, Any]:
    """Return headers with values that no library looks at as text."""
    return {
        name: value if isinstance(value, bytes) else value.encode("latin-1")
        for name, value in headers.items()
    }
