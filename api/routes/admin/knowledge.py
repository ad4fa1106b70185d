"""Owns documents over HTTP as administrators see them: of all users, to be withdrawn if need be."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.envelope import Envelope, ListEnvelope, list_envelope, tagged
from api.errors import error_docs, refused
from api.parameters import DocumentIdPath
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.knowledge import Document, DocumentSort, OwnedDocument, OwnedDocumentFilter
from schema.permissions import Permission
from schema.result import Err

router = APIRouter(prefix="/admin/knowledge", tags=["admin"])

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_OF_ALL: Final = error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)
_OF_ONE: Final = error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND)


@router.get("", summary="List documents of all users", responses=_OF_ALL)
async def list_all_documents(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[OwnedDocumentFilter, Query()],
    sort: DocumentSort = DocumentSort.CREATED_LAST,
) -> ListEnvelope[OwnedDocument]:
    """Return documents without their texts, newest first unless sorted otherwise."""
    found = await services.knowledge.list_all(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.post("/{document_id}/unpublish", summary="Withdraw somebody's document", responses=_OF_ONE)
async def unpublish_any_document(
    request: Request,
    response: Response,
    document_id: DocumentIdPath,
    actor: Writer,
    services: Services,
) -> Envelope[Document]:
    """Make a document a draft again, which its owner alone finds; this is audited."""
    result = await services.publication.unpublish(actor, document_id)
    if isinstance(result, Err):
        raise refused(result.error, "document")
    return tagged(request, response, result.value)
