"""The OpenAPI document: errors, headers, names of schemas, and the events of streams."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, Literal, TypeAlias

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api.envelope import ErrorResponse
from schema.errors import HTTP_STATUS, ErrorCode
from schema.events import (
    ChatChangedEvent,
    DeltaEvent,
    DoneEvent,
    ErrorEvent,
    EventData,
    MemoriesSuggestedEvent,
    MessageJoinedEvent,
    NoticeEvent,
    ResyncEvent,
    StepEvent,
    ThinkingEvent,
    ToolCallEvent,
    TurnChangedEvent,
    TurnEvent,
    UsageEvent,
)
from schema.wire import VersionedModel

SIGNED_IN: Final = (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)
"""The errors of a route that needs a signed-in caller."""
OF_ONE: Final = (*SIGNED_IN, ErrorCode.NOT_FOUND)
"""The errors of a route for one resource."""

_DESCRIPTIONS: Final = {
    ErrorCode.VALIDATION_ERROR: "The request is invalid; `details` lists the fields.",
    ErrorCode.UNAUTHENTICATED: "The access token is missing, invalid or expired.",
    ErrorCode.BUDGET_EXCEEDED: (
        "A budget is used up; `details` says which, and when it resets. With `turnId` it was used "
        "up during the turn."
    ),
    ErrorCode.FORBIDDEN: "The caller has no access to the resource, or lacks the permission.",
    ErrorCode.EMAIL_NOT_VERIFIED: "The caller has not verified their email address.",
    ErrorCode.NOT_FOUND: "The resource doesn't exist.",
    ErrorCode.CONFLICT: "The request conflicts with the current state.",
    ErrorCode.TURN_IN_PROGRESS: "A turn is already in progress in this chat.",
    ErrorCode.IDEMPOTENCY_CONFLICT: (
        "The idempotency key was used for a different request, or its resource was deleted."
    ),
    ErrorCode.RATE_LIMITED: "Too many requests; see `Retry-After`.",
    ErrorCode.PRECONDITION_FAILED: "The resource has changed: `If-Match` names an older version.",
    ErrorCode.PAYLOAD_TOO_LARGE: "The body or the conversation is too large.",
    ErrorCode.MODEL_REJECTED: "The model provider rejected the request; retrying doesn't help.",
    ErrorCode.MODEL_UNAVAILABLE: "The model is unavailable.",
    ErrorCode.SERVICE_UNAVAILABLE: (
        "The database, file storage or embedding service is unavailable; see `Retry-After`."
    ),
    ErrorCode.INTERNAL: "Internal error.",
}
_DEFAULT_DESCRIPTION: Final = "Successful Response"
_SUCCESSES: Final = {
    "200": "Success.",
    "201": "The resource was created.",
    "202": "The request was accepted.",
    "204": "Success; there is no body.",
}
_HEADERS: Final = {
    "ETag": "The resource's version.",
    "Location": "URL of the created resource.",
}

_Events: TypeAlias = tuple[type[EventData], ...]
_TURN_EVENTS: Final[_Events] = (
    TurnEvent,
    MessageJoinedEvent,
    StepEvent,
    ThinkingEvent,
    DeltaEvent,
    ToolCallEvent,
    UsageEvent,
    NoticeEvent,
    ErrorEvent,
    DoneEvent,
)
_USER_EVENTS: Final[_Events] = (
    ResyncEvent,
    TurnChangedEvent,
    ChatChangedEvent,
    MemoriesSuggestedEvent,
)
_REFERENCE: Final = "#/components/schemas/"
_TURN_STREAM: Final = "TurnEventStream"
_USER_STREAM: Final = "UserEventStream"
_GENERIC: Final = re.compile(r"(?P<list>List)?Envelope_(?P<of>\w+)_")


def _stream_of(events: str) -> dict[str, Any]:
    items = {"$ref": f"{_REFERENCE}{events}"}
    return {"text/event-stream": {"schema": {"type": "string"}, "itemSchema": items}}


EVENT_STREAM: Final = _stream_of(_TURN_STREAM)
"""The OpenAPI `content` of a turn's stream; each of its events is a `TurnEventStream`."""

USER_EVENT_STREAM: Final = _stream_of(_USER_STREAM)
"""The OpenAPI `content` of a user's stream; each of its events is a `UserEventStream`."""


_ERROR_CONTENT: Final = {
    "application/json": {"schema": {"$ref": f"{_REFERENCE}{ErrorResponse.__name__}"}}
}


def error_docs(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of the errors that a route may respond with."""
    always = (ErrorCode.VALIDATION_ERROR, ErrorCode.PAYLOAD_TOO_LARGE)
    outage = (ErrorCode.SERVICE_UNAVAILABLE, ErrorCode.INTERNAL)
    documented: dict[int | str, dict[str, Any]] = {}
    for code in (*always, *codes, *outage):
        sentence = f"`{code}`: {_DESCRIPTIONS[code]}"
        # Named, not given as a model: FastAPI would build a validator for each of a thousand.
        entry = documented.setdefault(
            HTTP_STATUS[code], {"description": "", "content": _ERROR_CONTENT}
        )
        entry["description"] = f"{entry['description']} {sentence}".lstrip()
    # Without it FastAPI would document a 422, which is never sent.
    documented["default"] = {"model": ErrorResponse, "description": "Any other error."}
    return documented


def complete_document(app: FastAPI) -> None:
    """Add to the application's OpenAPI document what FastAPI can't know."""
    generated = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        document: dict[str, Any] = _renamed(generated())
        for status, response in _successes(document):
            if response["description"] == _DEFAULT_DESCRIPTION:
                response["description"] = _SUCCESSES[status]
            for name in _headers_of(status, response):
                headers = response.setdefault("headers", {})
                headers[name] = {"description": _HEADERS[name], "schema": {"type": "string"}}
        schemas = document["components"]["schemas"]
        turn = "`step` clears a step's text, `delta` appends to it, and `done` is always last."
        user = "Each says what to read again; `resync` says to read all lists."
        streams = _event_schemas(_TURN_STREAM, _TURN_EVENTS, f"An event of a turn. {turn}")
        streams |= _event_schemas(_USER_STREAM, _USER_EVENTS, f"An event across chats. {user}")
        schemas.update(streams | schemas)
        for name, schema in schemas.items():
            schema["title"] = name
        document["components"]["schemas"] = dict(sorted(schemas.items()))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _successes(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status.startswith("2"):
                    yield status, response


def _headers_of(status: str, response: dict[str, Any]) -> Iterator[str]:
    """Yield the headers that `envelope.py` sends with such a response."""
    if status == "201":
        yield "Location"
    shape = response.get("content", {}).get("application/json", {}).get("schema", {})
    if shape.get("$ref", "").removeprefix(_REFERENCE) in _versioned_responses():
        yield "ETag"


def _versioned_responses() -> set[str]:
    return {f"{model.__name__}Response" for model in _versioned(VersionedModel)}


def _versioned(model: type[VersionedModel]) -> Iterator[type[VersionedModel]]:
    for kind in model.__subclasses__():
        yield kind
        yield from _versioned(kind)


def _event_schemas(stream: str, events: _Events, description: str) -> dict[str, Any]:
    """Return the schemas of events: the data of each, the event around it, and their union."""
    wanted: list[tuple[type[EventData], Literal["serialization"]]] = [
        (event, "serialization") for event in events
    ]
    _, definitions = models_json_schema(wanted, ref_template=f"{_REFERENCE}{{model}}")
    schemas: dict[str, Any] = definitions["$defs"]
    names = {event.event_name.value: f"Streamed{event.__name__}" for event in events}
    for event in events:
        schemas[names[event.event_name]] = _streamed(event)
    references = {name: f"{_REFERENCE}{schema}" for name, schema in names.items()}
    schemas[stream] = {
        "title": stream,
        "description": description,
        "oneOf": [{"$ref": reference} for reference in references.values()],
        "discriminator": {"propertyName": "event", "mapping": references},
    }
    return schemas


def _streamed(event: type[EventData]) -> dict[str, Any]:
    return {
        "title": f"Streamed{event.__name__}",
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "For `Last-Event-ID`."},
            "event": {"type": "string", "const": event.event_name.value},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": f"{_REFERENCE}{event.__name__}"},
            },
        },
        "required": ["id", "event", "data"],
    }


def _renamed(part: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return a part of the document with plain names for schemas.

    `Envelope_Chat_` becomes `ChatResponse`, `ListEnvelope_Chat_` `ChatListResponse`; a schema with
    two forms, `X-Output` and `X-Input`, becomes `X` and `XInput`.
    """
    match part:
        case dict():
            return {_plain_name(key): _renamed(value) for key, value in part.items()}
        case list():
            return [_renamed(item) for item in part]
        case str() if part.startswith(_REFERENCE):
            return f"{_REFERENCE}{_plain_name(part.removeprefix(_REFERENCE))}"
        case _:
            return part


def _plain_name(name: str) -> str:
    generic = _GENERIC.fullmatch(name)
    if generic is not None:
        return f"{generic['of']}{generic['list'] or ''}Response"
    return name.removesuffix("-Output").replace("-Input", "Input")
