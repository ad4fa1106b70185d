"""Owns what the answer of a webhook means, given at once or later, for the model.

Whatever it says is data from strangers: bounded by whoever reads it, and never an instruction.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NoReturn

from pydantic import JsonValue

from schema.result import Err, Ok, Result
from services.retry_after import wait_asked_for
from services.tools.definition import ToolOutcome, ToolUnavailableError, cut

_EXCERPT_CHARS: Final = 500
_NOT_NOW: Final = frozenset({408, 425, 429})
_ENVELOPES: Final = ({"output"}, {"output", "isError"})
_SPACE: Final = " \t\r\n"


class NotJson(StrEnum):
    """Why a body is no JSON."""

    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What a webhook answered with; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """What the answer says that it is, without parameters; empty where it says nothing."""
        return self.headers.get("content-type", "").partition(";")[0].strip(_SPACE).lower()

    @property
    def is_json(self) -> bool:
        """Whether the answer says that it is JSON."""
        return self.media_type == "application/json" or self.media_type.endswith("+json")


class Later(StrEnum):
    """The webhook took the call, and will answer by a callback."""

    BY_CALLBACK = "by_callback"


def meaning_of(answer: WebhookAnswer, *, now: datetime) -> ToolOutcome | Later:
    """Return what the model is to be told, or that the answer comes later.

    Errors: ToolUnavailableError where the webhook asks to be called again.
    """
    status = answer.status
    if status == 202:
        return Later.BY_CALLBACK
    if status == 204:
        return ToolOutcome(output="Done; the workflow has nothing to say about it.")
    if status in {200, 201}:
        return _outcome_of(answer)
    if status in _NOT_NOW or status >= 500:
        raise ToolUnavailableError(
            f"The workflow could not take the call now (status {status}).",
            reached=True,
            retry_after=wait_asked_for(answer.headers, now=now, if_over=timedelta()),
        )
    return _wrong(_refusal_in(answer))


def outcome_of_json(value: JsonValue) -> ToolOutcome:
    """Return the outcome that JSON stands for.

    An object with `output` and nothing but `isError` beside it says by these what is meant;
    any other value is the output itself.
    """
    if isinstance(value, dict) and set(value) in _ENVELOPES:
        is_error = value.get("isError", False)
        if isinstance(is_error, bool):
            return ToolOutcome(output=text_of(value["output"]), is_error=is_error)
    return ToolOutcome(output=text_of(value))


def text_of(value: JsonValue) -> str:
    """Return a value as the model reads it: a string as it is, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_json(body: bytes) -> Result[JsonValue, NotJson]:
    """Return what a body holds; what JSON has no word for, as NaN, is no JSON."""
    try:
        value: Any = json.loads(body, parse_constant=_refuse)
        # What can be read but is nested too deeply to be written is no use either.
        json.dumps(value)
    except (ValueError, RecursionError):
        return Err(NotJson.INVALID)
    return Ok(value)


def _outcome_of(answer: WebhookAnswer) -> ToolOutcome:
    if not answer.body.strip(_SPACE.encode()):
        return _wrong("The workflow answered with nothing, which is no result.")
    if answer.is_json or not answer.media_type:
        match read_json(answer.body):
            case Ok(value):
                return outcome_of_json(value)
            case Err():
                return _wrong("The workflow's answer should be JSON, but is none.")
    if answer.media_type == "text/plain":
        return _text_in(answer.body)
    if answer.media_type in {"text/html", "application/xhtml+xml"}:
        return _wrong("The workflow answered with a web page, which is no result.")
    return _wrong("The workflow's answer is neither JSON nor plain text.")


def _text_in(body: bytes) -> ToolOutcome:
    try:
        return ToolOutcome(output=body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return _wrong("The workflow's answer is no text in UTF-8.")


def _refusal_in(answer: WebhookAnswer) -> str:
    if 300 <= answer.status < 400:
        return (
            f"The workflow's address leads elsewhere (status {answer.status}), which is not "
            "followed. An administrator has to change it."
        )
    refused = f"The workflow did not do it (status {answer.status})."
    says = answer.is_json or answer.media_type == "text/plain"
    said = _decoded(answer.body).strip() if says else ""
    return f"{refused} It says: {cut(said, limit=_EXCERPT_CHARS)}" if said else refused


def _wrong(sentence: str) -> ToolOutcome:
    return ToolOutcome(output=sentence, is_error=True)


def _decoded(body: bytes) -> str:
    return body.decode("utf-8-sig", "replace")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
