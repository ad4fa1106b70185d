"""Documents of all users, as administrators see them."""

from typing import Annotated

from fastapi import Query, Request, Response

from api.access import may
from api.dependencies import Knowledge
from api.envelope import Envelope, ListEnvelope, list_envelope, tagged
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import DocumentIdPath, RequestedPage
from api.routing import GroupRouter
from schema.actors import Actor
from schema.knowledge import Document, DocumentSort, OwnedDocument, OwnedDocumentFilter
from schema.permissions import Permission

router = GroupRouter("/admin/knowledge", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]


@router.get(
    "",
    name="admin.knowledge.list",
    summary="List all users' documents",
    responses=error_docs(*SIGNED_IN),
)
async def list_all_documents(
    request: Request,
    actor: Reader,
    knowledge: Knowledge,
    page: RequestedPage,
    chosen: Annotated[OwnedDocumentFilter, Query()],
    sort: DocumentSort = DocumentSort.CREATED_LAST,
) -> ListEnvelope[OwnedDocument]:
    """Return documents without their text, newest first by default."""
    found = await knowledge.documents.list_all(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.post(
    "/{document_id}/unpublish",
    name="admin.knowledge.unpublish",
    summary="Unpublish a user's document",
    responses=error_docs(*OF_ONE),
)
async def unpublish_any_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    knowledge: Knowledge,
) -> Envelope[Document]:
    """Make a document a draft again, which only its owner can find. This is audited."""
    unpublished = await knowledge.publication.unpublish(actor, document_id)
    return tagged(request, response, value_or_raise(unpublished, "document"))
