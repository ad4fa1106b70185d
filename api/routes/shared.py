"""What anyone with the link of a share reads."""

from typing import Annotated

from fastapi import Path, Request, Response

from api.access import RATE_LIMITED_DOCS, SHARED_LIMITED
from api.dependencies import Services
from api.envelope import Envelope, envelope
from api.errors import value_or_raise
from api.openapi import error_docs
from api.routing import GroupRouter
from schema.errors import ErrorCode
from schema.shares import SharedConversation
from schema.wire import StorableText

router = GroupRouter("/shared", tag="shares")


@router.get(
    "/{token}",
    name="shares.read",
    summary="Read a shared branch",
    responses=error_docs(ErrorCode.NOT_FOUND) | RATE_LIMITED_DOCS,
    dependencies=[SHARED_LIMITED],
)
async def read_share(
    request: Request,
    response: Response,
    token: Annotated[StorableText, Path(max_length=200, description="The link's secret part.")],
    services: Services,
) -> Envelope[SharedConversation]:
    """Return what was said on a shared branch; 404 once it is revoked, expired or deleted."""
    shared = value_or_raise(await services.shares.read(token), "share")
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    return envelope(request, shared)
