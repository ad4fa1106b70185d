"""What a webhook's answer means for the model, whether it comes at once or later.

Its content is untrusted data: its reader bounds it, and it is never an instruction.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NoReturn

from pydantic import JsonValue

from schema.result import Err, Ok, Result
from services.retry_after import wait_asked_for
from services.tools.definition import ToolOutcome, ToolUnavailableError, cut

_MAX_EXCERPT: Final = 500
_RETRIABLE: Final = frozenset({408, 425, 429})
_ENVELOPES: Final = ({"output"}, {"output", "isError"})
# What n8n says of webhooks: first no route leads there, then none is registered.
_NOT_REGISTERED: Final = re.compile(rb"(?s)webhook.{0,200}not registered|Cannot POST /webhook")
_SPACE: Final = " \t\r\n"


class NotJson(StrEnum):
    """Why a body is not JSON."""

    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """A webhook's response; header names are lowercase."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The content type without parameters; empty without one."""
        return self.headers.get("content-type", "").partition(";")[0].strip(_SPACE).lower()

    @property
    def is_json(self) -> bool:
        """Whether the content type is JSON."""
        return self.media_type == "application/json" or self.media_type.endswith("+json")


class Later(StrEnum):
    """The webhook accepted the call, and will answer by a callback."""

    BY_CALLBACK = "by_callback"


def meaning_of(
    answer: WebhookAnswer, *, now: datetime, may_be_starting: bool = False
) -> ToolOutcome | Later:
    """Return the outcome for the model, or that the answer comes later.

    `may_be_starting` is whether an engine could know its workflows in a moment: n8n answers 404
    from when it listens until they are active, and says so in its own words.
    Errors: ToolUnavailableError if the call is to be repeated.
    """
    status = answer.status
    if status == 202:
        return Later.BY_CALLBACK
    if status == 204:
        return ToolOutcome(output="Done. The workflow returned no content.")
    if status in {200, 201}:
        return _outcome_of(answer)
    if status in _RETRIABLE or status >= 500:
        raise ToolUnavailableError(
            f"The workflow is unavailable (status {status}).",
            reached=True,
            retry_after=wait_asked_for(answer.headers, now=now, if_over=timedelta()),
        )
    if status == 404 and _NOT_REGISTERED.search(answer.body[:_MAX_EXCERPT]):
        # Nothing has run.
        raise ToolUnavailableError(_refusal_in(answer), reached=False)
    if status == 404 and may_be_starting:
        raise ToolUnavailableError(_refusal_in(answer), reached=True)
    return _error(_refusal_in(answer))


def outcome_of_json(value: JsonValue) -> ToolOutcome:
    """Return the outcome of a JSON value.

    An object with `output`, and optionally `isError`, is an envelope; any other value is the output
    itself.
    """
    if isinstance(value, dict) and set(value) in _ENVELOPES:
        is_error = value.get("isError", False)
        if isinstance(is_error, bool):
            return ToolOutcome(output=text_of(value["output"]), is_error=is_error)
    return ToolOutcome(output=text_of(value))


def text_of(value: JsonValue) -> str:
    """Return a value as the model reads it: a string unchanged, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_json(body: bytes) -> Result[JsonValue, NotJson]:
    """Return the JSON value of a body; NaN and Infinity are not JSON."""
    try:
        value: Any = json.loads(body, parse_constant=_refuse)
        # A value is of no use that can't be written: nested too deeply, or 1e999.
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return Err(NotJson.INVALID)
    return Ok(value)


def _outcome_of(answer: WebhookAnswer) -> ToolOutcome:
    if not answer.body.strip(_SPACE.encode()):
        return _error("The workflow returned no result.")
    if answer.is_json or not answer.media_type:
        match read_json(answer.body):
            case Ok(value):
                return outcome_of_json(value)
            case Err():
                return _error("The workflow returned invalid JSON.")
    if answer.media_type == "text/plain":
        return _text_in(answer.body)
    if answer.media_type in {"text/html", "application/xhtml+xml"}:
        return _error("The workflow returned a web page instead of a result.")
    return _error("The workflow returned neither JSON nor plain text.")


def _text_in(body: bytes) -> ToolOutcome:
    try:
        return ToolOutcome(output=body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return _error("The workflow returned text that is not valid UTF-8.")


def _refusal_in(answer: WebhookAnswer) -> str:
    if 300 <= answer.status < 400:
        return (
            f"The workflow's URL redirects (status {answer.status}); redirects are not followed. "
            "An administrator must change the URL."
        )
    refused = f"The workflow rejected the call (status {answer.status})."
    is_text = answer.is_json or answer.media_type == "text/plain"
    text = _decoded(answer.body).strip() if is_text else ""
    return f"{refused} Response: {cut(text, limit=_MAX_EXCERPT)}" if text else refused


def _error(sentence: str) -> ToolOutcome:
    return ToolOutcome(output=sentence, is_error=True)


def _decoded(body: bytes) -> str:
    return body.decode("utf-8-sig", "replace")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
