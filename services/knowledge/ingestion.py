"""Ingestion: a version's bytes become a text, passages and vectors.

Each step has its own transactions around work that holds no connection, and reads from the
database what is left to do, so repeating a step, or all of them, changes nothing. The ingestion of
a document that was deleted in the meantime ends without an error.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, func, insert, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, acting_user
from schema.alerts import AlertKind, AlertSeverity
from schema.audit import ResourceType
from schema.ids import new_id
from schema.ingestion import (
    DocumentVersionReference,
    FinishIngestionInput,
    IngestionProblem,
    IngestionProgress,
)
from schema.knowledge import IngestionStatus
from schema.result import Err, Ok, Result
from schema.tables import DocumentVersionRow, PassageRow, UserRow
from schema.tables.columns import utc_now
from services.alerts import OnAlert, raise_alert
from services.database import Database
from services.embeddings import Embedder, Purpose
from services.knowledge.extraction.documents import ContentType, ExtractionRefusal
from services.knowledge.extraction.extractor import Extractor
from services.knowledge.extraction.garbling import garbled_share
from services.knowledge.extraction.plain_text import decoded
from services.knowledge.passages import Passage, split
from services.knowledge.rows import is_version, light, progress_from_row, reference_from_row

_SENTENCES: Final[Mapping[ExtractionRefusal | IngestionProblem, str]] = {
    ExtractionRefusal.EMPTY: "The document is empty.",
    ExtractionRefusal.NOT_ITS_TYPE: "The document does not match its content type.",
    ExtractionRefusal.UNKNOWN_CHARSET: (
        "The document isn't valid UTF-8, and its charset is unclear. Upload it with its charset, "
        "e.g. `Content-Type: text/plain; charset=windows-1252`."
    ),
    ExtractionRefusal.GARBLED: (
        "The document's text is garbled: its fonts don't say which characters they show. "
        "Upload it in another format."
    ),
    ExtractionRefusal.TOO_LARGE: "The document has too much text. Split it and upload the parts.",
    ExtractionRefusal.TOO_COMPLEX: "The document takes too much memory or time to read.",
    ExtractionRefusal.ENCRYPTED: "The document is encrypted. Upload it without a password.",
    ExtractionRefusal.NO_TEXT: (
        "The document has no readable text, e.g. because its pages are images."
    ),
    IngestionProblem.EMBEDDING_REFUSED: "The embedding service rejected the document.",
    IngestionProblem.KEPT_FAILING: (
        "The document could not be read or embedded after several attempts. Upload it again later."
    ),
    IngestionProblem.STOPPED: "An operator stopped the ingestion. Upload the document again.",
}


def sentence_of(problem: ExtractionRefusal | IngestionProblem) -> str:
    """Return the sentence of a problem; none quotes the document."""
    return _SENTENCES[problem]


_WORTH_A_LOOK: Final = 0.05
_PARTLY_GARBLED: Final = (
    "Parts of the text are garbled: some of the document's fonts don't say which characters they "
    "show. Check the text, or upload it in another format."
)


def notice_of(content_type: ContentType, source: bytes, text: str) -> str | None:
    """Return what may be wrong with the text of a document that was read, or None."""
    if content_type is ContentType.PDF:
        return _PARTLY_GARBLED if garbled_share(text) > _WORTH_A_LOOK else None
    charset = None if content_type is ContentType.HTML else decoded(source)[1]
    if charset is None:
        return None
    return (
        f"The text was read as {charset.replace('cp125', 'windows-125')}, by what it looks like. "
        "If letters are wrong, upload it with its charset."
    )


_DELETED: Final = IngestionProgress(status=None)
# A document at the limits, its text and its passages take some 100 MB.
_EXTRACTIONS_AT_ONCE: Final = 4
_PASSAGES_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Extracted:
    """A text and what it was cut into."""

    text: str
    passages: Sequence[Passage]
    notice: str | None


class Ingestion:
    """Ingests versions, each as its owner; one that fails is an alert.

    Errors: every method raises DatabaseUnavailableError.
    """

    def __init__(
        self,
        database: Database,
        extractor: Extractor,
        embedder: Embedder,
        *,
        on_alert: OnAlert = lambda: None,
    ) -> None:
        self._database = database
        self._on_alert = on_alert
        self._extractor = extractor
        self._embedder = embedder
        self._extractions = asyncio.Semaphore(_EXTRACTIONS_AT_ONCE)

    async def extract(self, version: DocumentVersionReference) -> IngestionProgress:
        """Store the version's text and its passages, which have no vectors yet, or why not.

        Errors: ExtractionProcessError and OSError, where a few more attempts are worth it.
        Idempotency: what has been extracted is left alone.
        """
        async with self._extractions:
            async with self._database.transaction(acting_user(version.user_id)) as session:
                row = await _locked(session, version)
                if row is None or _is_extracted(row):
                    return await self._resumed(session, version, row)
                row.status = IngestionStatus.PROCESSING.value
                content_type = ContentType(row.content_type)
                source = await _source_of(session, version)
            extracted = await self._extracted(content_type, source)
            return await self._keep(version, extracted)

    async def embed_batch(self, version: DocumentVersionReference) -> IngestionProgress:
        """Store vectors of the embedder in use for one batch of the version's passages.

        Errors: EmbeddingError.
        Idempotency: passages that have such vectors are not embedded again.
        """
        actor = acting_user(version.user_id)
        async with self._database.transaction(actor) as session:
            row = await _read(session, version)
            if row is None or row.status != IngestionStatus.PROCESSING:
                return _progress_of(row)
            batch = await self._next_batch(session, version)
        texts = [content for _, content in batch]
        vectors = await self._embedder.embed(texts, purpose=Purpose.DOCUMENT) if texts else []
        async with self._database.transaction(actor) as session:
            row = await _locked(session, version)
            if row is None or row.status != IngestionStatus.PROCESSING:
                return _progress_of(row)
            await self._store_vectors(session, [passage_id for passage_id, _ in batch], vectors)
            row.embedded_count = await self._embedded(session, version)
            await session.flush()
            return progress_from_row(row)

    async def finish(self, ending: FinishIngestionInput) -> IngestionProgress:
        """End the ingestion: the version is ready, or has failed and leaves no passages.

        Idempotency: what has ended stays as it is.
        """
        version = ending.version
        if ending.problem is not None:
            return await self._fail(version, ending.problem, unless=_has_ended)
        async with self._database.transaction(acting_user(version.user_id)) as session:
            row = await _locked(session, version)
            if row is None or _has_ended(row):
                return _progress_of(row)
            row.status = IngestionStatus.READY.value
            row.finished_at = utc_now()
            await session.flush()
            return progress_from_row(row)

    async def _resumed(
        self,
        session: AsyncSession,
        version: DocumentVersionReference,
        row: DocumentVersionRow | None,
    ) -> IngestionProgress:
        """Return the progress of a version; vectors of other embedders don't count."""
        if row is not None and progress_from_row(row).is_under_way:
            row.embedded_count = await self._embedded(session, version)
            await session.flush()
        return _progress_of(row)

    async def _extracted(
        self, content_type: ContentType, source: bytes
    ) -> Result[_Extracted, ExtractionRefusal]:
        text = await self._extractor.extract(content_type, source)
        if isinstance(text, Err):
            return text
        passages = await asyncio.to_thread(split, text.value, content_type)
        if isinstance(passages, Err):
            return passages
        notice = await asyncio.to_thread(notice_of, content_type, source, text.value)
        return Ok(_Extracted(text.value, passages.value, notice))

    async def _keep(
        self, version: DocumentVersionReference, extracted: Result[_Extracted, ExtractionRefusal]
    ) -> IngestionProgress:
        if isinstance(extracted, Err):
            return await self._fail(version, extracted.error, unless=_is_extracted)
        kept = extracted.value
        async with self._database.transaction(acting_user(version.user_id)) as session:
            row = await _locked(session, version)
            if row is None or _is_extracted(row):
                return _progress_of(row)
            row.content = kept.text
            row.problem = kept.notice
            row.passage_count = len(kept.passages)
            await session.flush()
            await _insert(session, version, kept.passages)
            return progress_from_row(row)

    async def _fail(
        self,
        version: DocumentVersionReference,
        problem: ExtractionRefusal | IngestionProblem,
        *,
        unless: Callable[[DocumentVersionRow], bool],
    ) -> IngestionProgress:
        """Mark a version as failed, without passages, and raise the alert of it.

        As the service, since users raise no alerts.
        """
        async with self._database.transaction(SERVICE) as session:
            # First, as a deletion does: the alert refers to the user.
            owner = select(UserRow.id).where(col(UserRow.id) == version.user_id)
            await session.exec(owner.with_for_update(key_share=True, read=True))
            row = await _locked(session, version)
            if row is None or unless(row):
                return _progress_of(row)
            row.status = IngestionStatus.FAILED.value
            row.problem = sentence_of(problem)
            row.passage_count = row.embedded_count = 0
            row.finished_at = utc_now()
            await session.exec(delete(PassageRow).where(_is_of(version)))
            await session.flush()
            raised = await raise_alert(
                session,
                AlertKind.DOCUMENT_FAILED,
                AlertSeverity.WARNING,
                user_id=version.user_id,
                resource=(ResourceType.DOCUMENT, version.document_id),
                details={"version": version.number, "problem": problem.value},
                dedup_key=f"document:{version.document_id}:{version.number}",
            )
        if raised is not None:
            self._on_alert()
        return progress_from_row(row)

    async def _next_batch(
        self, session: AsyncSession, version: DocumentVersionReference
    ) -> list[tuple[UUID, str]]:
        """Return passages without a vector of the embedder, in their order; none is blank."""
        query = (
            select(PassageRow.id, PassageRow.content)
            .where(
                _is_of(version),
                col(PassageRow.embedder).is_distinct_from(self._embedder.name),
            )
            .order_by(col(PassageRow.position))
            .limit(self._embedder.max_batch)
        )
        return [(passage_id, content) for passage_id, content in await session.exec(query)]

    async def _store_vectors(
        self, session: AsyncSession, passage_ids: list[UUID], vectors: list[list[float]]
    ) -> None:
        values = [
            {"id": passage_id, "embedding": vector, "embedder": self._embedder.name}
            for passage_id, vector in zip(passage_ids, vectors, strict=True)
        ]
        if values:
            await session.exec(update(PassageRow), params=values)

    async def _embedded(self, session: AsyncSession, version: DocumentVersionReference) -> int:
        query = select(func.count()).where(
            _is_of(version), col(PassageRow.embedder) == self._embedder.name
        )
        return (await session.exec(query)).one()


def _has_ended(row: DocumentVersionRow) -> bool:
    return not progress_from_row(row).is_under_way


def _is_extracted(row: DocumentVersionRow) -> bool:
    """Return whether a version has its text, or has ended; a text without passages is refused."""
    return _has_ended(row) or row.passage_count > 0


def _progress_of(row: DocumentVersionRow | None) -> IngestionProgress:
    return _DELETED if row is None else progress_from_row(row)


async def _read(
    session: AsyncSession, version: DocumentVersionReference
) -> DocumentVersionRow | None:
    query = light().where(is_version(version.document_id, version.number))
    return (await session.exec(query)).first()


async def _locked(
    session: AsyncSession, version: DocumentVersionReference
) -> DocumentVersionRow | None:
    """Return the version's row, which is neither deleted nor published before the end of this."""
    query = light().where(is_version(version.document_id, version.number)).with_for_update()
    return (await session.exec(query)).first()


async def _source_of(session: AsyncSession, version: DocumentVersionReference) -> bytes:
    source = select(DocumentVersionRow.source)
    query = source.where(is_version(version.document_id, version.number))
    return (await session.exec(query)).one()


async def _insert(
    session: AsyncSession, version: DocumentVersionReference, passages: Sequence[Passage]
) -> None:
    rows = [
        {
            "id": new_id(),
            "document_id": version.document_id,
            "version": version.number,
            "user_id": version.user_id,
            "position": passage.position,
            "content": passage.text,
            "start_char": passage.start,
            "end_char": passage.end,
        }
        for passage in passages
    ]
    for first in range(0, len(rows), _PASSAGES_AT_ONCE):
        await session.exec(insert(PassageRow), params=rows[first : first + _PASSAGES_AT_ONCE])


def _is_of(version: DocumentVersionReference) -> Any:  # noqa: ANN401 -- a condition of SQLAlchemy
    is_version_of = col(PassageRow.version) == version.number
    return (col(PassageRow.document_id) == version.document_id) & is_version_of


_BATCH: Final = 500


class StrandedIngestionSearch:
    """Searches the versions of all users, as the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unfinished(self, *, older_than: timedelta) -> Sequence[DocumentVersionReference]:
        """Return versions that are not ingested, those not started yet first.

        Errors: DatabaseUnavailableError.
        """
        unfinished = (IngestionStatus.PENDING, IngestionStatus.PROCESSING)
        query = (
            light()
            .where(
                col(DocumentVersionRow.status).in_(unfinished),
                col(DocumentVersionRow.created_at) < utc_now() - older_than,
            )
            # During an outage of the embedding service many are in progress, and stay so.
            .order_by(
                col(DocumentVersionRow.status) == IngestionStatus.PROCESSING,
                col(DocumentVersionRow.created_at),
            )
            .limit(_BATCH)
        )
        async with self._database.transaction(SERVICE) as session:
            return [reference_from_row(row) for row in await session.exec(query)]
