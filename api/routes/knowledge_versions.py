"""Owns the versions of documents over HTTP: added, read, published, withdrawn."""

from typing import Annotated, assert_never

from fastapi import Request, Response

from api.dependencies import Services, WantedPage, may
from api.document_bodies import VersionBody, body_docs
from api.documentation import OF_ONE, error_docs
from api.envelope import Envelope, ListEnvelope, created, envelope, list_envelope, tagged
from api.errors import ApiError, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import DocumentIdPath, IdempotencyKey, VersionNumberPath
from api.rate_limits import limited
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.knowledge import (
    CreateVersionRequest,
    Document,
    DocumentText,
    DocumentVersion,
    PublishDocumentRequest,
    VersionFields,
)
from schema.permissions import Permission
from services.knowledge.versions import PublicationRefusal, VersionRefusal
from services.rate_limits.rules import Group
from services.resources import Conflict, Unreachable

router = GroupRouter("/knowledge/{document_id}", tag="knowledge")

Reader = Annotated[Actor, may(Permission.KNOWLEDGE_READ)]
Writer = Annotated[Actor, may(Permission.KNOWLEDGE_WRITE)]


@router.get("/versions", summary="List versions", responses=error_docs(*OF_ONE))
async def list_versions(
    request: Request,
    document_id: DocumentIdPath,
    actor: Reader,
    services: Services,
    page: WantedPage,
) -> ListEnvelope[DocumentVersion]:
    """Return a document's versions, newest first; of another's, only the published one."""
    found = value_or_raise(
        await services.knowledge.versions.list_versions(actor, document_id, page), _refused
    )
    return list_envelope(request, found)


@router.post(
    "/versions",
    status_code=201,
    summary="Add a version",
    responses=error_docs(*OF_ONE, ErrorCode.IDEMPOTENCY_CONFLICT),
    dependencies=[limited(Group.UPLOADS)],
    openapi_extra=body_docs(CreateVersionRequest, VersionFields),
)
async def create_version(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    services: Services,
    submission: VersionBody,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[DocumentVersion]:
    """Store a new version and begin to ingest it; others find the published one until then."""
    result = await services.knowledge.versions.add(
        actor, document_id, submission, key=idempotency_key
    )
    version = value_or_raise(result, _refused)
    await services.temporal.start_ingestion(document_id, version.number, owner=actor.user_id)
    return created(request, response, version, at=f"{request.url.path}/{version.number}")


@router.get("/versions/{number}", summary="Read a version", responses=error_docs(*OF_ONE))
async def get_version(
    request: Request,
    document_id: DocumentIdPath,
    number: VersionNumberPath,
    actor: Reader,
    services: Services,
) -> Envelope[DocumentText]:
    """Return a version with its text; drafts are their owner's business."""
    found = value_or_raise(
        await services.knowledge.versions.read(actor, document_id, number), _refused
    )
    return envelope(request, found)


@router.post(
    "/publish",
    summary="Publish a document",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT),
)
async def publish_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    services: Services,
    body: PublishDocumentRequest | None = None,
) -> Envelope[Document]:
    """Let others find the latest version, or an older one; it takes the place of any other."""
    number = None if body is None else body.version
    found = value_or_raise(
        await services.knowledge.publication.publish(actor, document_id, number), _refused
    )
    return tagged(request, response, found)


@router.post("/unpublish", summary="Withdraw a document", responses=error_docs(*OF_ONE))
async def unpublish_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    services: Services,
) -> Envelope[Document]:
    """Make a document a draft again, which its owner alone finds."""
    found = value_or_raise(
        await services.knowledge.publication.unpublish(actor, document_id), _refused
    )
    return tagged(request, response, found)


def _refused(refusal: Conflict | Unreachable | VersionRefusal | PublicationRefusal) -> ApiError:
    match refusal:
        case Conflict() | Unreachable():
            return refused(refusal, "document")
        case VersionRefusal.NO_SUCH_VERSION:
            return ApiError(ErrorCode.NOT_FOUND, "This document has no such version.")
        case VersionRefusal.DRAFT_OF_ANOTHER:
            return ApiError(ErrorCode.FORBIDDEN, "This version is a draft of someone else's.")
        case PublicationRefusal.NOT_READY:
            message = "This version is still being ingested. Publish it once it is ready."
            return ApiError(ErrorCode.CONFLICT, message)
        case PublicationRefusal.FAILED:
            message = "This version could not be ingested; `problem` says why. Add another one."
            return ApiError(ErrorCode.CONFLICT, message)
        case _:
            assert_never(refusal)
