"""Owns memories over HTTP."""

from typing import Annotated, assert_never

from fastapi import Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import ApiError, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IdempotencyKey, IfMatch, MemoryIdPath
from api.rate_limits import limited
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
from services.embeddings import EmbeddingError
from services.memories.service import MemoryRefusal
from services.rate_limits.rules import Group
from services.resources import Conflict, LimitReached, Unreachable

router = GroupRouter("/memories", tag="memories")

Reader = Annotated[Actor, may(Permission.MEMORIES_READ)]
Writer = Annotated[Actor, may(Permission.MEMORIES_WRITE)]

_OF_A_DECISION = error_docs(*OF_ONE, ErrorCode.CONFLICT)


@router.post(
    "",
    status_code=201,
    summary="Remember something",
    responses=error_docs(*SIGNED_IN, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_memory(
    request: Request,
    response: Response,
    body: CreateMemoryRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Memory]:
    """Store a memory, accepted. How many there may be is a matter of the caller's plan."""
    memory = value_or_raise(
        await services.memories.store.create(actor, body, key=idempotency_key), _refused
    )
    return created(request, response, memory, at=f"{request.url.path}/{memory.id}")


@router.get("", summary="List memories", responses=error_docs(*SIGNED_IN))
async def list_memories(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[MemoryFilter, Query()],
    sort: MemorySort = MemorySort.CREATED_LAST,
) -> ListEnvelope[Memory]:
    """Return the caller's memories, newest first unless sorted otherwise.

    Rejected ones are left out unless `status=rejected` asks for them.
    """
    found = await services.memories.store.list_memories(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.post(
    "/search",
    summary="Search memories by meaning",
    responses=error_docs(*SIGNED_IN),
    dependencies=[limited(Group.SEARCHES)],
)
async def search_memories(
    request: Request, body: SearchMemoriesRequest, actor: Reader, services: Services
) -> ListEnvelope[MemoryHit]:
    """Return the accepted memories nearest to the query, closest first; it is one page.

    `score` is cosine similarity. A memory that could not be embedded yet is not found.
    """
    try:
        hits = await services.memories.search.search(actor, body)
    except EmbeddingError as error:
        raise ApiError(
            ErrorCode.SERVICE_UNAVAILABLE,
            "Memories can't be searched by meaning now: the query can't be embedded. "
            "Try again shortly.",
        ) from error
    return list_envelope(request, Page(hits, None))


@router.get("/{memory_id}", summary="Read a memory", responses=error_docs(*OF_ONE))
async def get_memory(
    request: Request,
    response: Response,
    memory_id: MemoryIdPath,
    actor: Reader,
    services: Services,
) -> Envelope[Memory]:
    """Return one memory."""
    memory = value_or_raise(await services.memories.store.get(actor, memory_id), _refused)
    return tagged(request, response, memory)


@router.patch(
    "/{memory_id}",
    summary="Change a memory",
    responses=error_docs(*OF_ONE, ErrorCode.PRECONDITION_FAILED),
)
async def change_memory(
    request: Request,
    response: Response,
    memory_id: MemoryIdPath,
    body: ChangeMemoryRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[Memory]:
    """Change what a memory says, its kind or its importance; new words are found as such."""
    memory = value_or_raise(
        await services.memories.store.change(actor, memory_id, body, versions=versions), _refused
    )
    return tagged(request, response, memory)


@router.delete(
    "/{memory_id}", status_code=204, summary="Delete a memory", responses=error_docs(*OF_ONE)
)
async def delete_memory(memory_id: MemoryIdPath, actor: Writer, services: Services) -> Response:
    """Forget a memory for good."""
    value_or_raise(await services.memories.store.delete(actor, memory_id), _refused)
    return Response(status_code=204)


@router.post("/{memory_id}/accept", summary="Accept a suggestion", responses=_OF_A_DECISION)
async def accept_memory(
    request: Request,
    response: Response,
    memory_id: MemoryIdPath,
    actor: Writer,
    services: Services,
) -> Envelope[Memory]:
    """Let a suggested memory be found and used from now on; accepting it again is harmless."""
    memory = value_or_raise(await services.memories.store.accept(actor, memory_id), _refused)
    return tagged(request, response, memory)


@router.post("/{memory_id}/reject", summary="Reject a suggestion", responses=_OF_A_DECISION)
async def reject_memory(
    request: Request,
    response: Response,
    memory_id: MemoryIdPath,
    actor: Writer,
    services: Services,
) -> Envelope[Memory]:
    """Put a suggested memory aside, never to be suggested again; once more is harmless."""
    memory = value_or_raise(await services.memories.store.reject(actor, memory_id), _refused)
    return tagged(request, response, memory)


def _refused(refusal: LimitReached | MemoryRefusal | Conflict | Unreachable) -> ApiError:
    match refusal:
        case Conflict() | Unreachable():
            return refused(refusal, "memory")
        case LimitReached(limit):
            return ApiError(
                ErrorCode.FORBIDDEN,
                f"Your plan allows {limit:,} memories, suggested and rejected ones included. "
                "Delete some of them first.",
            )
        case MemoryRefusal.ACCEPTED_BEFORE:
            return ApiError(
                ErrorCode.CONFLICT, "This memory is accepted. Delete it if it is wrong."
            )
        case MemoryRefusal.REJECTED_BEFORE:
            return ApiError(
                ErrorCode.CONFLICT, "This memory was rejected. Make a new one if it is right."
            )
        case _:
            assert_never(refusal)
