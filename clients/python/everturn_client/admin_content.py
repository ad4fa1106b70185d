"""What users wrote, for administrators: turns and documents."""

from datetime import datetime
from typing import Any

from everturn_client import admin_models as models
from everturn_client.calls import Call, creation, filters, get, listing, post
from everturn_client.chat_models import Turn
from everturn_client.endpoints import Endpoint, Group, Listing, RunnerT
from everturn_client.models import Document


class AdminTurns(Group[RunnerT]):
    """Turns of all users."""

    @Listing
    def list(
        self,
        *,
        user_id: str | None = None,
        chat_id: str | None = None,
        status: str | None = None,
        model: str | None = None,
        error_code: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> Call[models.OwnedTurn]:
        """List turns, the newest first, `limit` on a page."""
        query = filters(
            user_id=user_id,
            chat_id=chat_id,
            status=status,
            model=model,
            error_code=error_code,
            limit=limit,
            **within(since, until),
        )
        return listing(models.OwnedTurn, "admin", "turns", query=query)

    @Endpoint
    def get(self, turn_id: str) -> Call[models.InspectedTurn]:
        """Return all that is known of a turn; this is audited."""
        return get(models.InspectedTurn, "admin", "turns", turn_id)

    @Endpoint
    def cancel(self, turn_id: str) -> Call[Turn]:
        """Cancel a turn."""
        return post(Turn, "admin", "turns", turn_id, "cancel")

    @Endpoint
    def rerun(self, turn_id: str, *, idempotency_key: str | None = None) -> Call[Turn]:
        """Answer the message of a chat's latest turn again."""
        return creation(Turn, "admin", "turns", turn_id, "rerun", body=None, key=idempotency_key)


class AdminKnowledge(Group[RunnerT]):
    """Documents of all users."""

    @Listing
    def list(
        self,
        *,
        status: str | None = None,
        user_id: str | None = None,
        search: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> Call[models.OwnedDocument]:
        """List documents, the newest first, `limit` on a page."""
        query = filters(status=status, user_id=user_id, search=search, sort=sort, limit=limit)
        return listing(models.OwnedDocument, "admin", "knowledge", query=query)

    @Endpoint
    def unpublish(self, document_id: str) -> Call[Document]:
        """Unpublish a document of any user."""
        return post(Document, "admin", "knowledge", document_id, "unpublish")


def within(since: datetime | str | None, until: datetime | str | None) -> dict[str, Any]:
    """Return the parameters of a range of time; `from` can't be an argument's name."""
    return filters(**{"from": since, "to": until})
