"""What webhooks' answers mean, for the model and for retries."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import JsonValue

from schema.result import Err, Ok
from services.tools.definition import ToolOutcome, ToolUnavailableError
from services.workflow_tools.answers import (
    Later,
    NotJson,
    WebhookAnswer,
    meaning_of,
    outcome_of_json,
    read_json,
)

NOW = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
JSON = "application/json; charset=utf-8"


def meaning(
    status: int, body: bytes = b"", content_type: str | None = JSON, **headers: str
) -> ToolOutcome | Later:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        given["content-type"] = content_type
    return meaning_of(WebhookAnswer(status, given, body), now=NOW)


def outcome(status: int, body: bytes = b"", content_type: str | None = JSON) -> ToolOutcome:
    found = meaning(status, body, content_type)
    assert isinstance(found, ToolOutcome)
    return found


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b'"Ticket 7 was opened."', "Ticket 7 was opened."),
        (b'{"ticket": 7, "by": "\xc3\x84da"}', '{"ticket":7,"by":"Äda"}'),
        (b"[1, 2]", "[1,2]"),
        (b"null", "null"),
        (b'{"output": "Done.", "isError": false}', "Done."),
        (b'{"output": {"ticket": 7}}', '{"ticket":7}'),
        (b'{"output": 1, "more": 2}', '{"output":1,"more":2}'),
        (b'{"output": 1, "isError": "yes"}', '{"output":1,"isError":"yes"}'),
        (b'{"isError": true}', '{"isError":true}'),
    ],
)
def test_json_is_the_output_unless_it_names_one(body: bytes, output: str) -> None:
    assert outcome(200, body) == ToolOutcome(output=output)


def test_invalid_utf_8_is_not_a_result() -> None:
    wrong = outcome(200, b"gr\xfc\xdfe", "Text/Plain; charset=latin-1")

    assert (wrong.is_error, wrong.output) == (
        True,
        "The workflow returned text that is not valid UTF-8.",
    )


def test_a_workflow_can_say_that_it_failed() -> None:
    said: dict[str, JsonValue] = {"output": "No such customer.", "isError": True}

    assert outcome_of_json(said) == ToolOutcome(output="No such customer.", is_error=True)


@pytest.mark.parametrize(
    ("body", "content_type", "output"),
    [
        ("Fällt aus.".encode(), "text/plain", "Fällt aus."),
        (b'{"a": 1}', "application/problem+json", '{"a":1}'),
        (b'{"a": 1}', None, '{"a":1}'),
    ],
)
def test_text_and_json_of_all_names_are_read(
    body: bytes, content_type: str | None, output: str
) -> None:
    assert outcome(201, body, content_type) == ToolOutcome(output=output)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<h1>Welcome</h1>", "text/html"),
        (b"<h1>Welcome</h1>", JSON),
        (b"<h1>Welcome</h1>", None),
        (b"%PDF-1.7", "application/pdf"),
        (b"", JSON),
        (b" \n", "text/plain"),
        (b'{"a": NaN}', JSON),
        (b"[" * 100_000, JSON),
        (b"9" * 10_000, JSON),
        (b"\xff\xfe\x00", JSON),
    ],
)
def test_invalid_results_are_reported_to_the_model_as_errors(
    body: bytes, content_type: str | None
) -> None:
    found = outcome(200, body, content_type)

    assert found.is_error
    assert found.output.startswith("The workflow")
    assert len(found.output) < 100


def test_no_content_means_that_it_is_done() -> None:
    assert not outcome(204).is_error


def test_an_accepted_call_is_answered_later() -> None:
    assert meaning(202, b'{"message": "Workflow was started"}') is Later.BY_CALLBACK


@pytest.mark.parametrize("status", [300, 304, 305, 400, 401, 404, 409, 410, 422])
def test_a_rejection_is_reported_to_the_model_with_its_status(status: int) -> None:
    found = outcome(status)

    assert found.is_error
    assert str(status) in found.output


def test_a_rejection_quotes_the_workflow_in_brief() -> None:
    assert "no such customer" in outcome(404, b"no such customer", "text/plain").output
    assert "customer" not in outcome(404, b"<p>no such customer", "text/html").output
    assert len(outcome(400, b"x" * 1_000_000, "text/plain").output) < 700


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_a_temporarily_unavailable_webhook_may_be_called_again(status: int) -> None:
    with pytest.raises(ToolUnavailableError) as raised:
        meaning(status, b"secrets of a stack trace", "text/plain")

    assert raised.value.reached
    assert raised.value.retry_after is None
    assert "secrets" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "retry_after"),
    [
        ("7", timedelta(seconds=7)),
        ("-7", timedelta()),
        ("0.5", timedelta(seconds=0.5)),
        ("99999999999999999999", timedelta(minutes=5)),
        ("inf", timedelta(minutes=5)),
        ("nan", None),
        ("soon", None),
        ("Sat, 31 Jan 2026 09:00:30 GMT", timedelta(seconds=30)),
        ("Sat, 31 Jan 2026 08:00:00 GMT", timedelta()),
        ("Sat, 31 Jan 2026 09:00:30 -0000", timedelta(seconds=30)),
        ("Sat, 31 Jan 99999999999 09:00:30 GMT", None),
    ],
)
def test_a_webhook_may_say_when_to_call_it_again(given: str, retry_after: timedelta | None) -> None:
    with pytest.raises(ToolUnavailableError) as raised:
        meaning(503, retry_after=given)

    assert raised.value.retry_after == retry_after


def test_an_engine_that_is_starting_may_not_know_its_workflow_yet() -> None:
    unknown = WebhookAnswer(404, {"content-type": "application/json"}, b'{"message":"unknown"}')

    with pytest.raises(ToolUnavailableError, match=r"status 404.*unknown"):
        meaning_of(unknown, now=NOW, may_be_starting=True)

    assert meaning_of(unknown, now=NOW) != Later.BY_CALLBACK


def test_invalid_json_is_detected() -> None:
    assert read_json(b'{"a": [1]}') == Ok({"a": [1]})
    assert read_json(b"{") == Err(NotJson.INVALID)
    assert read_json(b'{"a": -Infinity}') == Err(NotJson.INVALID)


@pytest.mark.parametrize(
    "body",
    [
        b'{"code":404,"message":"The requested webhook \\"POST everturn\\" is not registered."}',
        b"<!DOCTYPE html><pre>Cannot POST /webhook/everturn-tool</pre>",
    ],
)
def test_a_webhook_that_n8n_does_not_know_yet_is_waited_for(body: bytes) -> None:
    unknown = WebhookAnswer(404, {"content-type": "application/json"}, body)

    with pytest.raises(ToolUnavailableError) as caught:
        meaning_of(unknown, now=NOW)

    assert not caught.value.reached


def test_a_number_that_json_can_not_write_is_no_result() -> None:
    answer = WebhookAnswer(200, {"content-type": "application/json"}, b'{"a": 1e999}')

    outcome = meaning_of(answer, now=NOW)

    assert isinstance(outcome, ToolOutcome)
    assert outcome.is_error
