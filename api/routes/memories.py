"""Memories of the caller."""

from typing import Annotated

from fastapi import Query, Request, Response

from api.access import limited, may
from api.dependencies import Memories
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import IdempotencyKey, IfMatch, MemoryIdPath, RequestedPage
from api.routing import GroupRouter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.memories import (
    ChangeMemoryRequest,
    CreateMemoryRequest,
    Memory,
    MemoryFilter,
    MemoryHit,
    MemorySort,
    SearchMemoriesRequest,
)
from schema.pages import Page
from schema.permissions import Permission
from services.memories.writing import AlreadyStored
from services.rate_limits.rules import Group

router = GroupRouter("/memories", tag="memories")

Reader = Annotated[Actor, may(Permission.MEMORIES_READ)]
Writer = Annotated[Actor, may(Permission.MEMORIES_WRITE)]

_OF_A_DECISION = error_docs(*OF_ONE, ErrorCode.CONFLICT)


@router.post(
    "",
    name="memories.create",
    status_code=201,
    summary="Create a memory",
    responses={
        200: {"model": Envelope[Memory], "description": "The memory exists."},
        **error_docs(*SIGNED_IN, ErrorCode.IDEMPOTENCY_CONFLICT),
    },
)
async def create_memory(
    request: Request,
    response: Response,
    body: CreateMemoryRequest,
    actor: Writer,
    memories: Memories,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Memory]:
    """Store an accepted memory. The caller's plan limits the number of memories.

    A memory whose content differs at most by case, width, and spaces and punctuation around it is
    the same: it is returned as it is, with 200. If it was suggested or has expired, it is accepted
    or renewed instead.
    """
    written = value_or_raise(
        await memories.store.create(actor, body, key=idempotency_key), "memory"
    )
    memory = written.memory
    if isinstance(written, AlreadyStored):
        response.status_code = 200
        return tagged(request, response, memory)
    return created(request, response, memory, at=f"{request.url.path}/{memory.id}")


@router.get("", name="memories.list", summary="List memories", responses=error_docs(*SIGNED_IN))
async def list_memories(
    request: Request,
    actor: Reader,
    memories: Memories,
    page: RequestedPage,
    chosen: Annotated[MemoryFilter, Query()],
    sort: MemorySort = MemorySort.CREATED_LAST,
) -> ListEnvelope[Memory]:
    """Return the caller's memories, newest first by default.

    Rejected and replaced memories are left out unless `status` asks for them.
    """
    found = await memories.store.list_memories(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.post(
    "/search",
    name="memories.search",
    summary="Search memories",
    responses=error_docs(*SIGNED_IN),
    dependencies=[limited(Group.SEARCHES)],
)
async def search_memories(
    request: Request, body: SearchMemoriesRequest, actor: Reader, memories: Memories
) -> ListEnvelope[MemoryHit]:
    """Return the accepted memories that match the query best, as a single page.

    They are ranked by meaning and by words, and both rankings fused. Memories without an embedding
    are found by words, and all are while the embedding service is unavailable. Expired memories are
    not found.
    """
    hits = await memories.search.search(actor, body)
    return list_envelope(request, Page(hits, None))


@router.get(
    "/{memory_id}", name="memories.get", summary="Get a memory", responses=error_docs(*OF_ONE)
)
async def get_memory(
    request: Request, response: Response, memory_id: MemoryIdPath, actor: Reader, memories: Memories
) -> Envelope[Memory]:
    """Return one memory."""
    memory = value_or_raise(await memories.store.get(actor, memory_id), "memory")
    return tagged(request, response, memory)


@router.patch(
    "/{memory_id}",
    name="memories.update",
    summary="Update a memory",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_memory(
    request: Request,
    response: Response,
    memory_id: MemoryIdPath,
    body: ChangeMemoryRequest,
    actor: Writer,
    memories: Memories,
    versions: IfMatch,
) -> Envelope[Memory]:
    """Change a memory; new content is embedded again, and must not be another memory's."""
    memory = value_or_raise(
        await memories.store.change(actor, memory_id, body, versions=versions), "memory"
    )
    return tagged(request, response, memory)


@router.delete(
    "/{memory_id}",
    name="memories.delete",
    status_code=204,
    summary="Delete a memory",
    responses=error_docs(*OF_ONE),
)
async def delete_memory(memory_id: MemoryIdPath, actor: Writer, memories: Memories) -> Response:
    """Delete a memory for good."""
    value_or_raise(await memories.store.delete(actor, memory_id), "memory")
    return Response(status_code=204)


@router.post(
    "/{memory_id}/accept",
    name="memories.accept",
    summary="Accept a suggested memory",
    responses=_OF_A_DECISION,
)
async def accept_memory(
    request: Request, response: Response, memory_id: MemoryIdPath, actor: Writer, memories: Memories
) -> Envelope[Memory]:
    """Accept a suggestion, so that it is found and used. Repeating this is harmless.

    The memory that it replaces, if any, is kept with the status `replaced`.
    """
    memory = value_or_raise(await memories.store.accept(actor, memory_id), "memory")
    return tagged(request, response, memory)


@router.post(
    "/{memory_id}/reject",
    name="memories.reject",
    summary="Reject a suggested memory",
    responses=_OF_A_DECISION,
)
async def reject_memory(
    request: Request, response: Response, memory_id: MemoryIdPath, actor: Writer, memories: Memories
) -> Envelope[Memory]:
    """Reject a suggestion, so that it isn't suggested again. Repeating this is harmless."""
    memory = value_or_raise(await memories.store.reject(actor, memory_id), "memory")
    return tagged(request, response, memory)
