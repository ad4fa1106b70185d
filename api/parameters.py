"""Owns the parameters that several routes take in paths, queries and headers."""

import re
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from api.errors import invalid
from schema.events import EventId, parse_event_id
from schema.ids import ApiKeyId, ChatId, DocumentId, MemoryId, PlanId, PromptId, TurnId, UserId
from schema.wire import StorableText
from services.resources import Versions

ToolNamePath = Annotated[StorableText, Path(max_length=200, description="The tool's name.")]
ToolCallIdPath = Annotated[
    StorableText, Path(max_length=200, description="The `toolCallId` of its events.")
]
ServerNamePath = Annotated[StorableText, Path(max_length=200, description="The server's name.")]

ChatIdPath = Annotated[ChatId, Path(description="The chat's id.")]
DocumentIdPath = Annotated[DocumentId, Path(description="The document's id.")]
TurnIdPath = Annotated[TurnId, Path(description="The turn's id.")]
MemoryIdPath = Annotated[MemoryId, Path(description="The memory's id.")]
ApiKeyIdPath = Annotated[ApiKeyId, Path(description="The key's id.")]
UserIdPath = Annotated[UserId, Path(description="The user's id.")]
PlanIdPath = Annotated[PlanId, Path(description="The plan's id.")]
PromptIdPath = Annotated[PromptId, Path(description="The prompt's id.")]

VersionNumberPath = Annotated[int, Path(ge=1, le=2**31 - 1, description="The version's number.")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Sent again with the same body, it gives what it gave before.",
    ),
]


_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
# Elements of a list may be empty; their number and the blanks around them are nobody's concern.
_TAGS = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_STRONG_TAG = re.compile(r'(?<!W/)"(?P<version>0|[1-9][0-9]{0,8})"')


# Async although nothing waits: FastAPI hands plain functions to a thread.
async def _versions(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description='The `ETag` of what is meant, as `"3"`, or several; any other version is '
            "left alone. `*` stands for whichever there is.",
        ),
    ] = None,
) -> Versions:
    if if_match is None:
        return None
    given = ", ".join(request.headers.getlist("If-Match")).strip()
    if given == "*":
        return None
    if _TAGS.fullmatch(given) is None:
        raise invalid("header.If-Match", 'This is no list of entity tags, as `"3", "4"`.')
    # Weak tags never match, and others were never given out.
    return {int(tag["version"]) for tag in _STRONG_TAG.finditer(given)}


IfMatch = Annotated[Versions, Depends(_versions)]
"""The versions that a change is meant for, or None for whichever is there.

Source: RFC 9110, section 13.1.1.
"""


async def _resume_after(
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="The last event seen; goes before `after`."),
    ] = None,
    after: Annotated[
        str | None, Query(description="The last event seen, for clients that can't set headers.")
    ] = None,
) -> EventId | None:
    given = after if last_event_id is None else last_event_id
    if given is None:
        return None
    event_id = parse_event_id(given)
    if event_id is None:
        where = "query.after" if last_event_id is None else "header.Last-Event-ID"
        raise invalid(where, "This is not the id of an event.")
    return event_id


ResumeAfter = Annotated[EventId | None, Depends(_resume_after)]
