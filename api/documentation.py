"""Owns what OpenAPI says of answers beside the shapes of successes: their headers, and errors."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from fastapi import FastAPI

from api.envelope import ErrorEnvelope
from schema.errors import HTTP_STATUS, ErrorCode
from schema.wire import VersionedModel

SIGNED_IN: Final = (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)
"""What keeps somebody from a route that is not for everybody."""
OF_ONE: Final = (*SIGNED_IN, ErrorCode.NOT_FOUND)
"""What keeps somebody from one thing."""

_DESCRIPTIONS: Final = {
    ErrorCode.VALIDATION_ERROR: "The request is not valid; `details` names each field.",
    ErrorCode.UNAUTHENTICATED: "The token is missing, not valid or too old.",
    ErrorCode.FORBIDDEN: "The resource belongs to someone else, or the caller may not do this.",
    ErrorCode.NOT_FOUND: "There is no such resource.",
    ErrorCode.CONFLICT: "The request contradicts what is there.",
    ErrorCode.TURN_IN_PROGRESS: "A turn is under way in this chat.",
    ErrorCode.IDEMPOTENCY_CONFLICT: (
        "The idempotency key was used for another request, or what it made is deleted."
    ),
    ErrorCode.RATE_LIMITED: "Too many requests; `Retry-After` says when to try again.",
    ErrorCode.PRECONDITION_FAILED: "`If-Match` names a version that is not the newest any more.",
    ErrorCode.PAYLOAD_TOO_LARGE: "The body or the conversation is too large.",
    ErrorCode.MODEL_UNAVAILABLE: "The model could not answer.",
    ErrorCode.SERVICE_UNAVAILABLE: (
        "The database, or what embeds texts, is away; `Retry-After` says when to try again."
    ),
    ErrorCode.INTERNAL: "A defect here; or the turn failed for one.",
}
_HEADERS: Final = {
    "ETag": "The version of the thing, for `If-Match`.",
    "Location": "The path of what was made.",
}


def error_docs(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of the errors that a route may answer with."""
    always = (ErrorCode.VALIDATION_ERROR, ErrorCode.PAYLOAD_TOO_LARGE)
    outage = (ErrorCode.SERVICE_UNAVAILABLE, ErrorCode.INTERNAL)
    documented: dict[int | str, dict[str, Any]] = {}
    for code in (*always, *codes, *outage):
        sentence = f"`{code}`: {_DESCRIPTIONS[code]}"
        told = documented.setdefault(HTTP_STATUS[code], {"model": ErrorEnvelope})
        told["description"] = (
            f"{told['description']} {sentence}" if "description" in told else sentence
        )
    # Without it FastAPI would document a 422, which is never sent.
    documented["default"] = {"model": ErrorEnvelope, "description": "Any other failure."}
    return documented


def document_headers(app: FastAPI) -> None:
    """Let the application's OpenAPI document name the headers of successes."""
    without_headers = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        document = without_headers()
        for status, answer in _successes(document):
            for name in _headers_of(status, answer):
                headers = answer.setdefault("headers", {})
                headers[name] = {"description": _HEADERS[name], "schema": {"type": "string"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _successes(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    yield status, answer


def _headers_of(status: str, answer: dict[str, Any]) -> Iterator[str]:
    """Tell the headers that `envelope.py` sends with such an answer."""
    if status == "201":
        yield "Location"
    shape = answer.get("content", {}).get("application/json", {}).get("schema", {})
    if shape.get("$ref", "").rpartition("/")[2] in _versioned_envelopes():
        yield "ETag"


def _versioned_envelopes() -> set[str]:
    return {f"Envelope_{model.__name__}_" for model in _versioned(VersionedModel)}


def _versioned(model: type[VersionedModel]) -> Iterator[type[VersionedModel]]:
    for kind in model.__subclasses__():
        yield kind
        yield from _versioned(kind)
