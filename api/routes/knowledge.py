"""Documents: their versions, their publication and their search."""

from typing import Annotated

from fastapi import Query, Request, Response

from api.access import limited, may
from api.dependencies import Knowledge, Temporal
from api.document_bodies import DocumentBody, VersionBody, body_docs
from api.envelope import Envelope, ListEnvelope, created, envelope, list_envelope, tagged
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import (
    DocumentIdPath,
    IdempotencyKey,
    IfMatch,
    RequestedPage,
    VersionNumberPath,
)
from api.routing import GroupRouter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.knowledge import (
    ChangeDocumentRequest,
    CreateDocumentRequest,
    CreateVersionRequest,
    Document,
    DocumentFields,
    DocumentFilter,
    DocumentSort,
    DocumentText,
    DocumentVersion,
    PublishDocumentRequest,
    VersionFields,
)
from schema.knowledge_search import KnowledgeHit, SearchKnowledgeRequest
from schema.pages import Page
from schema.permissions import Permission
from services.rate_limits.rules import Group

router = GroupRouter("/knowledge", tag="knowledge")

Reader = Annotated[Actor, may(Permission.KNOWLEDGE_READ)]
Writer = Annotated[Actor, may(Permission.KNOWLEDGE_WRITE)]


@router.post(
    "",
    name="knowledge.create",
    status_code=201,
    summary="Create a document",
    responses=error_docs(*SIGNED_IN, ErrorCode.IDEMPOTENCY_CONFLICT),
    dependencies=[limited(Group.UPLOADS)],
    openapi_extra=body_docs(CreateDocumentRequest, DocumentFields),
)
async def create_document(
    request: Request,
    response: Response,
    actor: Writer,
    knowledge: Knowledge,
    temporal: Temporal,
    submission: DocumentBody,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Document]:
    """Store a document as a draft and start its ingestion; see `ingestion` for its progress."""
    result = await knowledge.documents.create(actor, submission, key=idempotency_key)
    document = value_or_raise(result, "document")
    number = document.latest_version
    await temporal.start_ingestion(document.id, number, owner=actor.user_id)
    return created(request, response, document, at=f"{request.url.path}/{document.id}")


@router.get("", name="knowledge.list", summary="List documents", responses=error_docs(*SIGNED_IN))
async def list_documents(
    request: Request,
    actor: Reader,
    knowledge: Knowledge,
    page: RequestedPage,
    chosen: Annotated[DocumentFilter, Query()],
    sort: DocumentSort = DocumentSort.CREATED_LAST,
) -> ListEnvelope[Document]:
    """Return the caller's documents, or with `scope=published` all published documents."""
    found = await knowledge.documents.list_documents(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.post(
    "/search",
    name="knowledge.search",
    summary="Search documents",
    responses=error_docs(*SIGNED_IN),
    dependencies=[limited(Group.SEARCHES)],
)
async def search_knowledge(
    request: Request, body: SearchKnowledgeRequest, actor: Reader, knowledge: Knowledge
) -> ListEnvelope[KnowledgeHit]:
    """Return the best matching passages by meaning and by words, as a single page.

    The search covers published documents and the caller's drafts: of a document its published
    version, of a draft its latest version that is ready. While the embedding service is
    unavailable, only words are matched.
    """
    hits = await knowledge.search.search(actor, body)
    return list_envelope(request, Page(hits, None))


@router.get(
    "/{document_id}", name="knowledge.get", summary="Get a document", responses=error_docs(*OF_ONE)
)
async def get_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Reader,
    knowledge: Knowledge,
) -> Envelope[Document]:
    """Return a document of the caller, or a published one."""
    document = value_or_raise(await knowledge.documents.get(actor, document_id), "document")
    return tagged(request, response, document)


@router.patch(
    "/{document_id}",
    name="knowledge.update",
    summary="Rename a document",
    responses=error_docs(*OF_ONE, ErrorCode.PRECONDITION_FAILED),
)
async def change_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    body: ChangeDocumentRequest,
    actor: Writer,
    knowledge: Knowledge,
    versions: IfMatch,
) -> Envelope[Document]:
    """Change a document's title; its content changes by new versions."""
    changed = await knowledge.documents.change(actor, document_id, body, versions=versions)
    return tagged(request, response, value_or_raise(changed, "document"))


@router.delete(
    "/{document_id}",
    name="knowledge.delete",
    status_code=204,
    summary="Delete a document",
    responses=error_docs(*OF_ONE),
)
async def delete_document(
    document_id: DocumentIdPath, actor: Writer, knowledge: Knowledge
) -> Response:
    """Delete a document with all its versions."""
    value_or_raise(await knowledge.documents.delete(actor, document_id), "document")
    return Response(status_code=204)


@router.get(
    "/{document_id}/versions",
    name="knowledge.versions.list",
    summary="List a document's versions",
    responses=error_docs(*OF_ONE),
)
async def list_versions(
    request: Request,
    document_id: DocumentIdPath,
    actor: Reader,
    knowledge: Knowledge,
    page: RequestedPage,
) -> ListEnvelope[DocumentVersion]:
    """Return a document's versions, newest first; for other users, only the published one."""
    found = await knowledge.versions.list_versions(actor, document_id, page)
    return list_envelope(request, value_or_raise(found, "document"))


@router.post(
    "/{document_id}/versions",
    name="knowledge.versions.create",
    status_code=201,
    summary="Create a document's version",
    responses=error_docs(*OF_ONE, ErrorCode.IDEMPOTENCY_CONFLICT),
    dependencies=[limited(Group.UPLOADS)],
    openapi_extra=body_docs(CreateVersionRequest, VersionFields),
)
async def create_version(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    knowledge: Knowledge,
    temporal: Temporal,
    submission: VersionBody,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[DocumentVersion]:
    """Store a new version and start its ingestion; the published version stays published."""
    result = await knowledge.versions.add(actor, document_id, submission, key=idempotency_key)
    version = value_or_raise(result, "document")
    await temporal.start_ingestion(document_id, version.number, owner=actor.user_id)
    return created(request, response, version, at=f"{request.url.path}/{version.number}")


@router.get(
    "/{document_id}/versions/{number}",
    name="knowledge.versions.get",
    summary="Get a document's version",
    responses=error_docs(*OF_ONE),
)
async def get_version(
    request: Request,
    document_id: DocumentIdPath,
    number: VersionNumberPath,
    actor: Reader,
    knowledge: Knowledge,
) -> Envelope[DocumentText]:
    """Return a version with its text; only the owner can read drafts."""
    found = await knowledge.versions.read(actor, document_id, number)
    return envelope(request, value_or_raise(found, "document"))


@router.post(
    "/{document_id}/publish",
    name="knowledge.publish",
    summary="Publish a document",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT),
)
async def publish_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    knowledge: Knowledge,
    body: PublishDocumentRequest | None = None,
) -> Envelope[Document]:
    """Publish the latest version, or the given one, in place of any published before."""
    number = None if body is None else body.version
    published = await knowledge.publication.publish(actor, document_id, number)
    return tagged(request, response, value_or_raise(published, "document"))


@router.post(
    "/{document_id}/unpublish",
    name="knowledge.unpublish",
    summary="Unpublish a document",
    responses=error_docs(*OF_ONE),
)
async def unpublish_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    knowledge: Knowledge,
) -> Envelope[Document]:
    """Make a document a draft again, which only its owner can find."""
    unpublished = await knowledge.publication.unpublish(actor, document_id)
    return tagged(request, response, value_or_raise(unpublished, "document"))
