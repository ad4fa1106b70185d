"""How provider failures are classified: which are retried, when, and which errors users see."""

from datetime import timedelta

import anthropic
import httpx2
import pytest

from schema.errors import RETRYABLE, ErrorCode
from services.models.gateway import FailureKind, ModelCallError, _classified

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/messages")
SECRET = "words of a person"


def failure(status: int, kind: str = "", **headers: str) -> ModelCallError:
    response = httpx2.Response(status, request=REQUEST, headers=headers)
    body = {"type": "error", "error": {"type": kind, "message": SECRET}}
    return _classified(anthropic.APIStatusError(SECRET, response=response, body=body))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, FailureKind.REFUSED),
        (409, FailureKind.REFUSED),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.OVERLOADED),
        (502, FailureKind.OVERLOADED),
        (503, FailureKind.OVERLOADED),
        (529, FailureKind.OVERLOADED),
    ],
)
def test_transient_failures_are_retried(status: int, kind: FailureKind) -> None:
    error = failure(status)

    assert (error.kind, error.retryable, error.exhausted) == (kind, True, False)
    assert error.code is ErrorCode.MODEL_UNAVAILABLE


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, FailureKind.REFUSED, ErrorCode.MODEL_REJECTED),
        (401, FailureKind.CREDENTIALS, ErrorCode.MODEL_REJECTED),
        (403, FailureKind.CREDENTIALS, ErrorCode.MODEL_REJECTED),
        (404, FailureKind.REFUSED, ErrorCode.MODEL_REJECTED),
        (413, FailureKind.TOO_LARGE, ErrorCode.PAYLOAD_TOO_LARGE),
        (422, FailureKind.REFUSED, ErrorCode.MODEL_REJECTED),
    ],
)
def test_final_failures_are_not(status: int, kind: FailureKind, code: ErrorCode) -> None:
    error = failure(status)

    assert (error.kind, error.retryable, error.exhausted) == (kind, False, True)
    assert error.code is code
    assert code not in RETRYABLE


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        ("overloaded_error", True),
        ("api_error", True),
        ("timeout_error", True),
        ("rate_limit_error", True),
        ("invalid_request_error", False),
        ("authentication_error", False),
    ],
)
def test_an_error_within_a_stream_is_classified_by_its_type(kind: str, *, retryable: bool) -> None:
    error = failure(200, kind)

    assert error.retryable is retryable
    assert "200" not in str(error)


def test_a_provider_that_cannot_be_reached_is_asked_again() -> None:
    for cause in (
        anthropic.APIConnectionError(request=REQUEST),
        anthropic.APITimeoutError(request=REQUEST),
    ):
        error = _classified(cause)
        assert (error.kind, error.retryable) == (FailureKind.UNREACHABLE, True)


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("0", timedelta(0)),
        ("1.5", timedelta(seconds=1.5)),
        ("30", timedelta(seconds=30)),
        ("-5", timedelta(0)),
        ("86400", timedelta(minutes=5)),
        ("Wed, 21 Oct 2020 07:28:00 GMT", timedelta(0)),
        ("Wed, 21 Oct 2099 07:28:00 GMT", timedelta(minutes=5)),
        ("Wed, 99 Oct 2026", None),
        ("", None),
    ],
)
def test_the_wait_that_a_provider_asks_for_is_kept_within_reason(
    header: str, wait: timedelta | None
) -> None:
    assert failure(429, **{"retry-after": header}).retry_after == wait


def test_a_failure_does_not_quote_the_provider() -> None:
    for status in (200, 400, 429, 500):
        error = failure(status, "overloaded_error")
        assert SECRET not in str(error)
        assert SECRET not in error.sentence


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("nan", None),
        ("inf", timedelta(minutes=5)),
        ("1e400", timedelta(minutes=5)),
        ("-inf", timedelta()),
    ],
)
def test_an_invalid_retry_after_is_harmless(header: str, expected: timedelta | None) -> None:
    assert failure(429, **{"retry-after": header}).retry_after == expected
