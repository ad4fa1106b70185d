"""Defects in responses, and commands that reproduce them."""

import shlex
from collections.abc import Sequence
from typing import Final

import requests
from schemathesis import CheckContext, CheckFunction, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
)

from tests.fuzz.operations import GeneratedCase

_MOST: Final = 8
_SHOWN_CHARS: Final = 4_000

REFUSED_BEFORE: Final = frozenset({414, 431})
"""Statuses of URLs and heads that are too long: no operation has seen them."""


def one_status_of_those_documented(
    ctx: CheckContext, response: Response, case: GeneratedCase
) -> None:
    """Accept no `default` response: clients are written for the documented statuses."""
    if response.status_code in REFUSED_BEFORE:
        return
    documented = set(case.operation.responses.status_codes) - {"default"}
    assert str(response.status_code) in documented, (
        f"Status {response.status_code} is not documented, {', '.join(sorted(documented))} are."
    )


def errors_name_their_request(ctx: CheckContext, response: Response, case: GeneratedCase) -> None:
    """Failures can be found in the logs by their request ID."""
    named = response.headers.get("x-request-id")
    assert named, "X-Request-Id is missing."
    if response.status_code >= 400 and "/health/" not in case.path:
        meta = response.json().get("meta", {})
        assert meta.get("requestId") == named[0], f"meta is {meta}, the header says {named[0]}."


CONFORMS: Final[tuple[CheckFunction, ...]] = (
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    errors_name_their_request,
)
DOCUMENTED: Final[tuple[CheckFunction, ...]] = (*CONFORMS, one_status_of_those_documented)
GENERATED: Final[tuple[CheckFunction, ...]] = (*DOCUMENTED, negative_data_rejection)


class Findings:
    """The defects found by one test, each once: a test continues after the first."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int | None], str] = {}

    def judge(
        self, case: GeneratedCase, response: Response, checks: Sequence[CheckFunction]
    ) -> None:
        """Record the failed checks of a response."""
        applicable = [check for check in checks if _applies(check, response)]
        if not applicable:
            return  # for Schemathesis, no checks would mean all of them
        try:
            case.validate_response(response, checks=applicable)
        except FailureGroup as group:
            for failure in group.exceptions:
                self._add(failure, response)

    def expect(self, response: Response, *, that: bool, what: str) -> None:
        """Record a response that violates a condition."""
        if not that:
            self._add(Failure(operation=None, title=what, message=""), response)

    def no_answer(self, error: requests.RequestException) -> None:
        """Record a request without a response in time."""
        asked = "" if error.request is None else curl(_prepared(error.request))
        self._found.setdefault((type(error).__name__, None), f"{error}\n    {asked}")

    def check_none(self) -> None:
        """Fail with all findings."""
        shown = "\n\n".join(list(self._found.values())[:_MOST])
        assert not self._found, f"{len(self._found)} kinds of defects\n\n{shown}"

    def _add(self, failure: Failure, response: Response) -> None:
        answer = response.content[:500].decode(errors="replace")
        text = f"- {failure}\n    {curl(response.request)}\n    -> {response.status_code} {answer}"
        self._found.setdefault((failure.title, response.status_code), text[:_SHOWN_CHARS])


def curl(request: requests.PreparedRequest) -> str:
    """Return the command that sends a request again; the reader fills in the token."""
    words = [
        "curl",
        "--path-as-is",
        "-sSi",
        "-X",
        str(request.method),
        shlex.quote(str(request.url)),
    ]
    for name, value in request.headers.items():
        if name.lower() in {"content-length", "accept-encoding", "connection"}:
            continue
        if name.lower() == "authorization" and _text(value).startswith("Bearer ey"):
            words += ["-H", '"Authorization: Bearer $TOKEN"']
        else:
            words += ["-H", _quoted(f"{_text(name)}: {_text(value)}")]
    if request.body:
        body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
        words += ["--data-binary", _quoted(body.decode("latin-1"))]
    return " ".join(words)


def _applies(check: CheckFunction, response: Response) -> bool:
    """Return whether a check applies to such responses.

    The schema of a stream is not that of its events; and Schemathesis does not count 413, 414 and
    431 among the ways to reject a request.
    """
    if check is negative_data_rejection and response.status_code in {413, *REFUSED_BEFORE}:
        return False
    streamed = any("event-stream" in kind for kind in response.headers.get("content-type", []))
    return not (streamed and check is response_schema_conformance)


def _prepared(request: requests.Request | requests.PreparedRequest) -> requests.PreparedRequest:
    return request.prepare() if isinstance(request, requests.Request) else request


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _quoted(text: str) -> str:
    """Quote for bash, with escapes for unprintable characters."""
    if text.isascii() and text.isprintable():
        return shlex.quote(text)
    escaped = "".join(
        char
        if char.isascii() and char.isprintable() and char not in "\\'"
        else f"\\x{ord(char):02x}"
        for char in text
    )
    return f"$'{escaped}'"
