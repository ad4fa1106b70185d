"""Owns the search of knowledge over HTTP."""

from typing import Annotated

from fastapi import Request

from api.dependencies import Services, may
from api.documentation import SIGNED_IN, error_docs
from api.envelope import ListEnvelope, list_envelope
from api.group_router import GroupRouter
from api.rate_limits import limited
from schema.actors import Actor
from schema.knowledge_search import KnowledgeHit, SearchKnowledgeRequest
from schema.pages import Page
from schema.permissions import Permission
from services.rate_limits.rules import Group

router = GroupRouter("/knowledge", tag="knowledge")

Reader = Annotated[Actor, may(Permission.KNOWLEDGE_READ)]


@router.post(
    "/search",
    summary="Search knowledge by meaning and by words",
    responses=error_docs(*SIGNED_IN),
    dependencies=[limited(Group.SEARCHES)],
)
async def search_knowledge(
    request: Request, body: SearchKnowledgeRequest, actor: Reader, services: Services
) -> ListEnvelope[KnowledgeHit]:
    """Return the passages that match best, of all that is published and of the caller's drafts.

    It is one page. Of a draft only the latest version counts that is ready, and of a document
    with a published version that version alone. While texts can't be embedded, the words of the
    query decide.
    """
    hits = await services.knowledge.search.search(actor, body)
    return list_envelope(request, Page(hits, None))
