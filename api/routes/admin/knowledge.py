"""Owns documents over HTTP as administrators see them: of all users, to be withdrawn if need be."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, list_envelope, tagged
from api.errors import refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import DocumentIdPath
from schema.actors import Actor
from schema.knowledge import Document, DocumentSort, OwnedDocument, OwnedDocumentFilter
from schema.permissions import Permission

router = GroupRouter("/admin/knowledge", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_refused = partial(refused, noun="document")


@router.get("", summary="List documents of all users", responses=error_docs(*SIGNED_IN))
async def list_all_documents(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[OwnedDocumentFilter, Query()],
    sort: DocumentSort = DocumentSort.CREATED_LAST,
) -> ListEnvelope[OwnedDocument]:
    """Return documents without their texts, newest first unless sorted otherwise."""
    found = await services.knowledge.documents.list_all(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.post(
    "/{document_id}/unpublish",
    summary="Withdraw somebody's document",
    responses=error_docs(*OF_ONE),
)
async def unpublish_any_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    services: Services,
) -> Envelope[Document]:
    """Make a document a draft again, which its owner alone finds; this is audited."""
    document = value_or_raise(
        await services.knowledge.publication.unpublish(actor, document_id), _refused
    )
    return tagged(request, response, document)
