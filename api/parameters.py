"""Owns the parameters that several routes take in paths, queries and headers."""

import re
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query

from api.errors import invalid
from schema.events import EventId, parse_event_id
from schema.ids import ApiKeyId, ChatId, DocumentId, MemoryId, PlanId, PromptId, TurnId, UserId
from schema.wire import StorableText


# Async although nothing waits: FastAPI hands plain functions to a thread.
async def _chat_id(chat_id: Annotated[UUID, Path(description="The chat's id.")]) -> ChatId:
    return ChatId(chat_id)


async def _turn_id(turn_id: Annotated[UUID, Path(description="The turn's id.")]) -> TurnId:
    return TurnId(turn_id)


async def _memory_id(
    memory_id: Annotated[UUID, Path(description="The memory's id.")],
) -> MemoryId:
    return MemoryId(memory_id)


async def _user_id(user_id: Annotated[UUID, Path(description="The user's id.")]) -> UserId:
    return UserId(user_id)


async def _api_key_id(key_id: Annotated[UUID, Path(description="The key's id.")]) -> ApiKeyId:
    return ApiKeyId(key_id)


async def _plan_id(plan_id: Annotated[UUID, Path(description="The plan's id.")]) -> PlanId:
    return PlanId(plan_id)


async def _document_id(
    document_id: Annotated[UUID, Path(description="The document's id.")],
) -> DocumentId:
    return DocumentId(document_id)


async def _prompt_id(
    prompt_id: Annotated[UUID, Path(description="The prompt's id.")],
) -> PromptId:
    return PromptId(prompt_id)


ToolNamePath = Annotated[StorableText, Path(max_length=200, description="The tool's name.")]
ServerNamePath = Annotated[StorableText, Path(max_length=200, description="The server's name.")]

ChatIdPath = Annotated[ChatId, Depends(_chat_id)]
DocumentIdPath = Annotated[DocumentId, Depends(_document_id)]
TurnIdPath = Annotated[TurnId, Depends(_turn_id)]
MemoryIdPath = Annotated[MemoryId, Depends(_memory_id)]
ApiKeyIdPath = Annotated[ApiKeyId, Depends(_api_key_id)]
UserIdPath = Annotated[UserId, Depends(_user_id)]
PlanIdPath = Annotated[PlanId, Depends(_plan_id)]
PromptIdPath = Annotated[PromptId, Depends(_prompt_id)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Sent again with the same body, it gives what it gave before.",
    ),
]


_ENTITY_TAG = re.compile(r'(?P<weak>W/)?"(?P<value>[\x21\x23-\x7e\x80-\xff]*)"')
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_NO_VERSION = 0  # what a weak tag matches, and one that was never given out


async def _version(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description='The `ETag` of what is meant, as `"3"`; another version is left alone.',
        ),
    ] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    tag = _ENTITY_TAG.fullmatch(if_match.strip())
    if tag is None:
        raise invalid("header.If-Match", 'This is not one entity tag, as `"3"`.')
    is_ours = tag.group("weak") is None and _VERSION.fullmatch(tag.group("value"))
    return int(tag.group("value")) if is_ours else _NO_VERSION


IfMatch = Annotated[int | None, Depends(_version)]
"""The version that a change is meant for, or None for whichever is there.

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
