"""Parameters of routes: in paths, queries and headers."""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Header, Path, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.envelope import FieldProblem
from api.error_messages import NOT_AN_EVENT, NOT_ENTITY_TAGS, UNKNOWN_PARAMETER
from api.errors import ApiError, invalid
from schema.errors import ErrorCode
from schema.events import EventId, UserEventId, parse_event_id, parse_user_event_id
from schema.ids import (
    ApiKeyId,
    ChatId,
    DocumentId,
    FileId,
    MemoryId,
    MessageId,
    PlanId,
    PromptId,
    SessionId,
    ShareId,
    TurnId,
    UserId,
)
from schema.pages import PageRequest
from schema.wire import StorableText, make_storable
from services.resources import Versions

_Id = TypeVar("_Id")

ToolNamePath = Annotated[StorableText, Path(max_length=200, description="The tool's name.")]
ToolCallIdPath = Annotated[
    StorableText, Path(max_length=200, description="The tool call's `toolCallId`.")
]
ServerNamePath = Annotated[StorableText, Path(max_length=200, description="The server's name.")]

ChatIdPath = Annotated[ChatId, Path(description="The chat's ID.")]
DocumentIdPath = Annotated[DocumentId, Path(description="The document's ID.")]
FileIdPath = Annotated[FileId, Path(description="The file's ID.")]
MessageIdPath = Annotated[MessageId, Path(description="The message's ID.")]
TurnIdPath = Annotated[TurnId, Path(description="The turn's ID.")]
MemoryIdPath = Annotated[MemoryId, Path(description="The memory's ID.")]
ApiKeyIdPath = Annotated[ApiKeyId, Path(description="The key's ID.")]
SessionIdPath = Annotated[SessionId, Path(description="The session's ID.")]
UserIdPath = Annotated[UserId, Path(description="The user's ID.")]
ShareIdPath = Annotated[ShareId, Path(description="The share's ID.")]
PlanIdPath = Annotated[PlanId, Path(description="The plan's ID.")]
PromptIdPath = Annotated[PromptId, Path(description="The prompt's ID.")]

VersionNumberPath = Annotated[int, Path(ge=1, le=2**31 - 1, description="The version's number.")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Retrying with the same key and body returns the original response.",
    ),
]


# Async although nothing is awaited: FastAPI runs plain functions in a thread.
async def _page(
    limit: Annotated[int, Query(ge=1, le=100, description="The maximum number of items.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=2000, description="The previous page's `meta.nextCursor`.")
    ] = None,
) -> PageRequest:
    return PageRequest(limit, cursor)


RequestedPage = Annotated[PageRequest, Depends(_page)]


_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
# Elements of a list may be empty, with any number of blanks around them.
_TAGS: Final = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_STRONG_TAG: Final = re.compile(r'(?<!W/)"(?P<version>0|[1-9][0-9]{0,8})"')


async def _versions(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description='The resource\'s expected `ETag`, e.g. `"3"`, or a list of them; `*` '
            "matches any version. Any other version is left unchanged.",
        ),
    ] = None,
) -> Versions:
    if if_match is None:
        return None
    given = ", ".join(request.headers.getlist("If-Match")).strip()
    if given == "*":
        return None
    if _TAGS.fullmatch(given) is None:
        raise invalid("header.If-Match", NOT_ENTITY_TAGS)
    # Weak tags never match, and tags of another form were never sent.
    return {int(tag["version"]) for tag in _STRONG_TAG.finditer(given)}


IfMatch = Annotated[Versions, Depends(_versions)]
"""The versions that a change applies to, or None for any.

Source: RFC 9110, section 13.1.1.
"""


_LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="The ID of the last event received; takes precedence over `after`.",
    ),
]
_After = Annotated[
    str | None,
    Query(description="The ID of the last event, for clients that can't set headers."),
]


def _resuming(
    parse: Callable[[str], _Id | None], last_event_id: str | None, after: str | None
) -> _Id | None:
    # An empty ID is a client's way to say that it has received none (WHATWG HTML, section 9.2.6).
    given = last_event_id or after
    if not given:
        return None
    event_id = parse(given)
    if event_id is None:
        raise invalid("header.Last-Event-ID" if last_event_id else "query.after", NOT_AN_EVENT)
    return event_id


async def _resume_after(last_event_id: _LastEventId = None, after: _After = None) -> EventId | None:
    return _resuming(parse_event_id, last_event_id, after)


async def _resume_user_events_after(
    last_event_id: _LastEventId = None, after: _After = None
) -> UserEventId | None:
    return _resuming(parse_user_event_id, last_event_id, after)


ResumeAfter = Annotated[EventId | None, Depends(_resume_after)]
ResumeUserEventsAfter = Annotated[UserEventId | None, Depends(_resume_user_events_after)]


class _KnownParametersOnly:
    """Refuses query parameters that the route does not have."""

    def __init__(self) -> None:
        self._known: dict[Callable[..., Any], frozenset[str]] = {}

    async def __call__(self, request: Request) -> None:
        if not request.scope["query_string"]:
            return
        route: APIRoute = request.scope["route"]
        if route.endpoint not in self._known:
            self._known[route.endpoint] = frozenset(_query_parameters(route.dependant))
        unknown = sorted(set(request.query_params) - self._known[route.endpoint])
        if unknown:
            details = [
                FieldProblem(path=f"query.{make_storable(name)[:100]}", message=UNKNOWN_PARAMETER)
                for name in unknown[:20]
            ]
            message = f"{details[0].path}: {UNKNOWN_PARAMETER}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, details=details)


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    """Yield the names of a route's query parameters, those of its filter included."""
    for dependency in dependant.dependencies:
        yield from _query_parameters(dependency)
    for parameter in dependant.query_params:
        model = parameter.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from (field.alias or name for name, field in model.model_fields.items())
        else:
            yield parameter.alias


KNOWN_PARAMETERS_ONLY: Final = Depends(_KnownParametersOnly())
"""A typo in a parameter's name must not change a result silently."""
