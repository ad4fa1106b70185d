"""Owns documents over HTTP: made, listed, read, renamed, deleted."""

from functools import partial
from typing import Annotated, assert_never

from fastapi import Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.document_bodies import DocumentBody, body_docs
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import ApiError, refused, value_or_raise
from api.group_router import GroupRouter
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
from services.rate_limits.rules import Group
from services.resources import Conflict, LimitReached

router = GroupRouter("/knowledge", tag="knowledge")

Reader = Annotated[Actor, may(Permission.KNOWLEDGE_READ)]
Writer = Annotated[Actor, may(Permission.KNOWLEDGE_WRITE)]

_refused = partial(refused, noun="document")


@router.post(
    "",
    status_code=201,
    summary="Add a document",
    responses=error_docs(*SIGNED_IN, ErrorCode.IDEMPOTENCY_CONFLICT),
    dependencies=[limited(Group.UPLOADS)],
    openapi_extra=body_docs(CreateDocumentRequest, DocumentFields),
)
async def create_document(
    request: Request,
    response: Response,
    actor: Writer,
    services: Services,
    submission: DocumentBody,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Document]:
    """Store a document as a draft and begin to ingest it; `ingestion` says how far that is."""
    result = await services.knowledge.documents.create(actor, submission, key=idempotency_key)
    document = value_or_raise(result, _not_created)
    await services.temporal.start_ingestion(
        document.id, document.latest_version, owner=actor.user_id
    )
    return created(request, response, document, at=f"{request.url.path}/{document.id}")


@router.get("", summary="List documents", responses=error_docs(*SIGNED_IN))
async def list_documents(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[DocumentFilter, Query()],
    sort: DocumentSort = DocumentSort.CREATED_LAST,
) -> ListEnvelope[Document]:
    """Return the caller's documents, or with `scope=published` what anybody has published."""
    found = await services.knowledge.documents.list_documents(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.get("/{document_id}", summary="Read a document", responses=error_docs(*OF_ONE))
async def get_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Reader,
    services: Services,
) -> Envelope[Document]:
    """Return one document of the caller's, or one that somebody has published."""
    document = value_or_raise(await services.knowledge.documents.get(actor, document_id), _refused)
    return tagged(request, response, document)


@router.patch(
    "/{document_id}",
    summary="Rename a document",
    responses=error_docs(*OF_ONE, ErrorCode.PRECONDITION_FAILED),
)
async def change_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    body: ChangeDocumentRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[Document]:
    """Change a document's title; its texts are changed by new versions."""
    document = value_or_raise(
        await services.knowledge.documents.change(actor, document_id, body, versions=versions),
        _refused,
    )
    return tagged(request, response, document)


@router.delete(
    "/{document_id}", status_code=204, summary="Delete a document", responses=error_docs(*OF_ONE)
)
async def delete_document(
    document_id: DocumentIdPath, actor: Writer, services: Services
) -> Response:
    """Delete a document with all its versions; nobody finds it from then on."""
    value_or_raise(await services.knowledge.documents.delete(actor, document_id), _refused)
    return Response(status_code=204)


def _not_created(refusal: LimitReached | Conflict) -> ApiError:
    match refusal:
        case LimitReached(limit):
            message = f"Your plan allows {limit:,} documents. Delete some of them first."
            return ApiError(ErrorCode.FORBIDDEN, message)
        case Conflict():
            return refused(refusal, "document")
        case _:
            assert_never(refusal)
