"""The revocation of shares; they are created and listed below their chats."""

from typing import Annotated

from fastapi import Response

from api.access import may
from api.dependencies import Services
from api.errors import value_or_raise
from api.openapi import OF_ONE, error_docs
from api.parameters import ShareIdPath
from api.routing import GroupRouter
from schema.actors import Actor
from schema.permissions import Permission

router = GroupRouter("/shares", tag="shares")


@router.delete(
    "/{share_id}",
    name="shares.delete",
    status_code=204,
    summary="Revoke a share",
    responses=error_docs(*OF_ONE),
)
async def revoke_share(
    share_id: ShareIdPath, actor: Annotated[Actor, may(Permission.CHATS_WRITE)], services: Services
) -> Response:
    """End a share: its link stops working at once."""
    value_or_raise(await services.shares.revoke(actor, share_id), "share")
    return Response(status_code=204)
