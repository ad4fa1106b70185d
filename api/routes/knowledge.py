"""Owns documents over HTTP: made, listed, read, renamed, deleted."""

from typing import Annotated, Final, assert_never

from fastapi import APIRouter, Query, Request, Response

from api.dependencies import CurrentCaller, Services, WantedPage, may
from api.document_bodies import DocumentBody, body_docs
from api.envelope import Envelope, ListEnvelope, list_envelope, tagged
from api.errors import ApiError, error_docs, refused
from api.parameters import DocumentIdPath, IdempotencyKey, IfMatch
from api.rate_limits import limited
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.knowledge import (
    ChangeDocumentRequest,
    CreateDocumentRequest,
    Document,
    DocumentFields,
    DocumentFilter,
    DocumentSort,
)
from schema.permissions import Permission
from schema.result import Err
from services.knowledge.refusals import DocumentRefusal
from services.rate_limits.rules import Group
from services.refusals import Conflict, Unreachable

router = APIRouter(prefix="/knowledge", tags=["knowledge"])

Reader = Annotated[Actor, may(Permission.KNOWLEDGE_READ)]
Writer = Annotated[Actor, may(Permission.KNOWLEDGE_WRITE)]

_OF_ALL: Final = error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)
_OF_ONE: Final = error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND)


@router.post(
    "",
    status_code=201,
    summary="Add a document",
    responses=error_docs(
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_FOUND,
        ErrorCode.IDEMPOTENCY_CONFLICT,
    ),
    dependencies=[limited(Group.UPLOADS)],
    openapi_extra=body_docs(CreateDocumentRequest, DocumentFields),
)
async def create_document(
    request: Request,
    response: Response,
    actor: Writer,
    caller: CurrentCaller,
    services: Services,
    submission: DocumentBody,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Document]:
    """Store a document as a draft and begin to ingest it; `ingestion` says how far that is."""
    most = caller.standing.entitlements.max_documents
    result = await services.knowledge.create(
        actor, submission, key=idempotency_key, max_documents=most
    )
    if isinstance(result, Err):
        raise _not_created(result.error, most)
    document = result.value
    await services.ingestions.start(document.id, document.latest_version, owner=actor.user_id)
    return tagged(request, response, document)


@router.get("", summary="List documents", responses=_OF_ALL)
async def list_documents(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[DocumentFilter, Query()],
    sort: DocumentSort = DocumentSort.CREATED_LAST,
) -> ListEnvelope[Document]:
    """Return the caller's documents, or with `scope=published` what anybody has published."""
    found = await services.knowledge.list_documents(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.get("/{document_id}", summary="Read a document", responses=_OF_ONE)
async def get_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Reader,
    services: Services,
) -> Envelope[Document]:
    """Return one document of the caller's, or one that somebody has published."""
    result = await services.knowledge.get(actor, document_id)
    if isinstance(result, Err):
        raise refused(result.error, "document")
    return tagged(request, response, result.value)


@router.patch(
    "/{document_id}",
    summary="Rename a document",
    responses=error_docs(
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_FOUND,
        ErrorCode.PRECONDITION_FAILED,
    ),
)
async def change_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    body: ChangeDocumentRequest,
    actor: Writer,
    services: Services,
    version: IfMatch,
) -> Envelope[Document]:
    """Change a document's title; its texts are changed by new versions."""
    result = await services.knowledge.change(actor, document_id, body, version=version)
    if isinstance(result, Err):
        raise refused(result.error, "document")
    return tagged(request, response, result.value)


@router.delete("/{document_id}", status_code=204, summary="Delete a document", responses=_OF_ONE)
async def delete_document(
    document_id: DocumentIdPath, actor: Writer, services: Services
) -> Response:
    """Delete a document with all its versions; nobody finds it from then on."""
    result = await services.knowledge.delete(actor, document_id)
    if isinstance(result, Err):
        raise refused(result.error, "document")
    return Response(status_code=204)


def _not_created(why: Conflict | DocumentRefusal | Unreachable, most: int) -> ApiError:
    match why:
        case DocumentRefusal.TOO_MANY:
            message = f"Your plan allows {most:,} documents. Delete one first."
            return ApiError(ErrorCode.FORBIDDEN, message)
        case Conflict() | Unreachable():
            return refused(why, "document")
        case _:
            assert_never(why)
