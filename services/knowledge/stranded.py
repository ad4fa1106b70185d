"""Owns finding versions whose ingestion may have been forgotten, as while Temporal was away."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlmodel import col

from schema.actors import SERVICE
from schema.ingestion import DocumentVersionReference
from schema.knowledge import IngestionStatus
from schema.tables import DocumentVersionRow
from schema.tables.columns import utc_now
from services.database import Database
from services.knowledge.rows import light, reference_from_row

_BATCH: Final = 500


class StrandedIngestionSearch:
    """Looks through the versions of all users, as the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unfinished(self, *, older_than: timedelta) -> Sequence[DocumentVersionReference]:
        """Return versions that are not ingested, those that nobody has begun with before others.

        Errors: DatabaseUnavailableError.
        """
        unfinished = (IngestionStatus.PENDING, IngestionStatus.PROCESSING)
        query = (
            light()
            .where(
                col(DocumentVersionRow.status).in_(unfinished),
                col(DocumentVersionRow.created_at) < utc_now() - older_than,
            )
            # During an outage of the embedding service many are under way, and stay so.
            .order_by(
                col(DocumentVersionRow.status) == IngestionStatus.PROCESSING,
                col(DocumentVersionRow.created_at),
            )
            .limit(_BATCH)
        )
        async with self._database.transaction(SERVICE) as session:
            return [reference_from_row(row) for row in await session.exec(query)]
