"""How provider failures are classified: which are retried, when, and which errors users see."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from schema.errors import RETRYABLE, ErrorCode
from services.models.failures import FailureKind, ModelCallError, provider_error

SECRET = "words of a person"


def failure(status: int, kind: str = "", **headers: str) -> ModelCallError:
    return provider_error(status, said(SECRET, kind), headers)


def said(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


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


@pytest.mark.parametrize("wait", [timedelta(seconds=1), timedelta(seconds=3), timedelta(minutes=2)])
def test_a_date_is_waited_for_to_its_end(wait: timedelta) -> None:
    moment = datetime.now(UTC) + wait
    header = format_datetime(moment, usegmt=True)

    asked = failure(429, **{"retry-after": header}).retry_after

    assert asked is not None
    assert datetime.now(UTC) + asked >= moment.replace(microsecond=0)


@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 222205 tokens > 200000 maximum",
        (
            "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease "
            "input length or `max_tokens` and try again"
        ),
        "Input is too long for requested model.",
        (
            "This model's maximum context length is 4097 tokens. However, your messages have "
            "4301 tokens."
        ),
        "the request exceeds the available context size (4096 tokens), try increasing it",
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_prompt_beyond_the_context_is_too_large(status: int, message: str) -> None:
    error = provider_error(status, said(message), {})

    assert (error.kind, error.retryable) == (FailureKind.TOO_LARGE, False)
    assert error.code is ErrorCode.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize(
    ("message", "index"),
    [
        ("tools.1.custom.input_schema: JSON schema is invalid. It must match draft 2020-12", 1),
        ("tools.2.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf", 2),
        ("tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'", 0),
        ("tools.1.input_schema.properties: Property keys should match pattern", 1),
        ("The value at toolConfig.tools.2.toolSpec.inputSchema.json.type must be object", 2),
        ('[{"loc": ["body", "tools", 1, "input_schema"], "msg": "Field required"}]', 1),
        ("Invalid 'tools[2].function.parameters': schema must be an object", 2),
        ("Invalid schema for function 'weather': schema must be an object", 1),
        ("tools: Tool names must be unique.", None),
        ("tools.7.custom.input_schema: JSON schema is invalid", None),
        ("Invalid schema for function 'weather' or 'plan': too deep", None),
        ("Invalid schema for function 'unheard_of': too deep", None),
    ],
)
def test_a_refused_tool_is_named_by_its_position(message: str, index: int | None) -> None:
    names = ["plan", "weather", "weather_tomorrow"]

    for status in (200, 400, 422):
        error = provider_error(status, said(message), {}, tool_names=names)

        assert (error.kind, error.refused_tool_index) == (FailureKind.TOOLS_REFUSED, index)
        assert (error.retryable, error.code) == (False, ErrorCode.MODEL_REJECTED)


@pytest.mark.parametrize(
    "message",
    [
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: c1",
        "messages.3.content.0.tool_use.input: Input should be a valid dictionary",
        "model: claude-none",
        "",
    ],
)
def test_other_refusals_do_not_accuse_a_tool(message: str) -> None:
    error = provider_error(400, said(message), {}, tool_names=["model"])

    assert (error.kind, error.refused_tool_index) == (FailureKind.REFUSED, None)


@pytest.mark.parametrize(
    ("body", "kind", "retryable"),
    [
        ({"error": {"message": "busy"}}, FailureKind.OVERLOADED, True),
        ({"error": {"message": "slow down", "code": 429}}, FailureKind.RATE_LIMITED, True),
        (
            {"error": {"message": "no", "type": "BadRequest", "code": 400}},
            FailureKind.REFUSED,
            False,
        ),
        ({"error": "tools are down"}, FailureKind.OVERLOADED, True),
        ({"error": None}, FailureKind.OVERLOADED, True),
        ("Bad gateway", FailureKind.OVERLOADED, True),
        (None, FailureKind.OVERLOADED, True),
        ([1], FailureKind.OVERLOADED, True),
        (
            {"error": {"type": ["x"], "message": {"a": 1}, "code": "429"}},
            FailureKind.OVERLOADED,
            True,
        ),
    ],
)
def test_an_error_within_a_stream_may_have_any_shape(
    body: object, kind: FailureKind, *, retryable: bool
) -> None:
    error = provider_error(200, body, {})

    assert (error.kind, error.retryable) == (kind, retryable)
    assert "HTTP" not in str(error)


def test_a_message_without_end_is_searched_only_so_far() -> None:
    error = provider_error(400, said("x" * 50_000_000 + "tools.1."), {}, tool_names=["a", "b"])

    assert error.kind is FailureKind.REFUSED
