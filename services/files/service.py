"""Files as users manage them: upload, list, read, delete.

What is stored twice is announced first: an object in S3 is on the list of those to delete before
it is written, and leaves it in the transaction that stores its file.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias, cast
from uuid import UUID

import structlog
from sqlalchemy import Uuid, bindparam, delete, func
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor, acting_user
from schema.audit import AuditAction, ResourceType
from schema.files import File, FileOrigin, FileSort
from schema.ids import FileId, UserId, new_id
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import FileRow
from schema.wire import Payload
from services.audit import record
from services.auth.accounts import AccountCache
from services.database import Database, DatabaseUnavailableError
from services.database.connections import lock
from services.database.queries import CompiledQuery, Listing, Order
from services.files.inspection import FileRefusal
from services.files.inspector import Inspected, Inspector
from services.files.object_storage import ObjectStorage
from services.files.store import (
    Bytes,
    Content,
    FileLostError,
    FilesUnavailableError,
    OpenFile,
    StoredPieces,
    Variant,
    store_pieces,
)
from services.models.request_bodies import (
    ContentReader,
    ContentUnavailableError,
    StoredContent,
)
from services.resources import (
    Conflict,
    LimitReached,
    Unreachable,
    create_once,
    why_unreachable,
)

_log = structlog.get_logger(__name__)

_WRITES_AT_A_TIME: Final = 4
"""Each holds a connection and a piece of its file."""

_ANNOUNCED_FOR: Final = timedelta(hours=1)
_ANNOUNCE: Final = "INSERT INTO file_erasures (file_id, due_at) VALUES ($1, now() + $2)"
_DROP: Final = "UPDATE file_erasures SET due_at = now() WHERE file_id = $1"
_DUE: Final = "SELECT file_id FROM file_erasures WHERE due_at <= now() ORDER BY due_at LIMIT $1"
_ERASED: Final = "DELETE FROM file_erasures WHERE file_id = $1 AND due_at <= now()"
_POSTPONED: Final = "UPDATE file_erasures SET due_at = now() + $2 WHERE file_id = ANY ($1)"
_PAUSE: Final = timedelta(minutes=1)

_UNATTACHED: Final = """
SELECT id FROM files WHERE NOT attached AND created_at < now() - $1::interval
ORDER BY created_at LIMIT $2
"""
_DELETE_UNATTACHED: Final = """
DELETE FROM files WHERE id IN (
    SELECT id FROM files WHERE id = ANY ($1) AND NOT attached FOR UPDATE SKIP LOCKED)
"""
_AT_ONCE: Final = 100

_ORDERS: Final = {
    FileSort.CREATED: Order("createdAt", (col(FileRow.id),)),
    FileSort.CREATED_LAST: Order("-createdAt", (col(FileRow.id),), descending=True),
}
_WITHOUT_TEXT: Final = defer(FileRow.text, raiseload=True)  # type: ignore[arg-type]  # a column
_LIGHT: Final = select(FileRow).options(_WITHOUT_TEXT)
_FILE: Final = CompiledQuery(_LIGHT.where(col(FileRow.id) == bindparam("id", type_=Uuid)))
_FILES: Final = Listing(_LIGHT.where(col(FileRow.user_id) == bindparam("owner_id", type_=Uuid)))


@dataclass(frozen=True, slots=True)
class StorageFull:
    """The plan allows no more than `limit` bytes of files."""

    limit: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it arrived: open, with what its sender says of it."""

    file: int
    name: str
    declared: str = ""
    charset: str | None = None


class UploadIdentity(Payload):
    """What identifies an upload under an idempotency key."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file whose content can be read."""

    file: File
    sha256: bytes
    storage: str


Refusal: TypeAlias = FileRefusal | LimitReached | StorageFull | Conflict


class FileService:
    """Manages the files of users. Errors: DatabaseUnavailableError.

    Without `objects`, contents are in the database.
    """

    def __init__(
        self,
        database: Database,
        accounts: AccountCache,
        inspector: Inspector,
        objects: ObjectStorage | None,
        *,
        unattached_for: timedelta,
        text_only_models: Collection[str] = (),
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._inspector = inspector
        self._pieces = StoredPieces(database)
        self._objects = objects
        self._unattached_for = unattached_for
        self._text_only_models = text_only_models
        self._writes = asyncio.Semaphore(_WRITES_AT_A_TIME)

    @property
    def max_bytes(self) -> int:
        """The size limit of a file."""
        return self._inspector.limits.bytes

    async def create(
        self,
        actor: Actor,
        upload: Upload,
        *,
        key: str | None,
        origin: FileOrigin = FileOrigin.UPLOAD,
    ) -> Result[File, Refusal]:
        """Inspect and store a file.

        Errors: FilesUnavailableError; ExtractionProcessError.
        Idempotency: retrying with the same key, name and bytes returns the file stored before.
        """
        inspected = await self._inspector.inspect(
            upload.file, name=upload.name, declared=upload.declared, charset=upload.charset
        )
        if isinstance(inspected, Err):
            return inspected
        found, content = inspected.value, OpenFile(upload.file)
        row = self._row(actor, found, content, name=upload.name, origin=origin)
        contents: dict[Variant, Content] = {"original": content}
        if found.rendition:
            contents["model"] = Bytes(found.rendition)
        full = await self._full(actor, row)
        if full is not None:
            return Err(full)
        async with self._writes:
            if self._objects is not None:
                await self._write_objects(self._objects, FileId(row.id), contents)
            result = await self._store(actor, row, contents, key=key)
        if self._objects is not None and not (isinstance(result, Ok) and result.value.id == row.id):
            await self._drop(FileId(row.id))
        return result

    async def list_files(self, actor: Actor, page: PageRequest, *, sort: FileSort) -> Page[File]:
        """Return the actor's files. Errors: InvalidCursorError."""
        async with self._database.statements(actor) as connection:
            rows = await _FILES.read(connection, page, _ORDERS[sort], {"owner_id": actor.user_id})
        return rows.map(File.model_validate)

    async def get(self, actor: Actor, file_id: FileId) -> Result[File, Unreachable]:
        """Return what a file is."""
        found = await self.find(actor, file_id)
        return Ok(found.value.file) if isinstance(found, Ok) else found

    async def find(self, actor: Actor, file_id: FileId) -> Result[StoredFile, Unreachable]:
        """Return a file to be read."""
        async with self._database.statements(actor) as connection:
            row = await _FILE.first(connection, id=file_id)
        if row is None:
            return Err(await why_unreachable(self._database, FileRow, file_id))
        return Ok(StoredFile(File.model_validate(row), row.sha256, row.storage))

    async def delete(self, actor: Actor, file_id: FileId) -> Result[None, Unreachable]:
        """Delete a file; where it is attached, it is shown as deleted."""
        async with self._database.transaction(actor) as session:
            deleted = delete(FileRow).where(col(FileRow.id) == file_id).returning(col(FileRow.id))
            if (await session.exec(deleted)).first() is not None:
                record(session, actor, AuditAction.FILE_DELETED, (ResourceType.FILE, file_id))
                return Ok(None)
        return Err(await why_unreachable(self._database, FileRow, file_id))

    def read(
        self,
        actor: Actor,
        file_id: FileId,
        storage: str,
        *,
        start: int,
        end: int,
        variant: Variant = "original",
    ) -> AsyncIterator[bytes]:
        """Yield the bytes of a file from `start` to `end`.

        Errors: FileLostError; FilesUnavailableError.
        """
        if storage == "postgres":
            return self._pieces.read(actor, file_id, variant, start=start, end=end)
        if self._objects is None:
            raise FilesUnavailableError
        return self._objects.read(file_id, variant, start=start, end=end)

    def are_taken_by(self, model: str) -> bool:
        """Return whether a model takes images and PDFs."""
        return model not in self._text_only_models

    def reader_of(self, user_id: UserId) -> ContentReader:
        """Return what reads the files in a user's prompts."""
        return partial(self._read_for_model, acting_user(user_id))

    async def _read_for_model(self, actor: Actor, content: StoredContent) -> AsyncIterator[bytes]:
        """Yield what a prompt holds. Errors: ContentUnavailableError."""
        file_id, variant = FileId(content.file_id), cast("Variant", content.variant)
        try:
            pieces = self.read(
                actor, file_id, content.storage, start=0, end=content.size, variant=variant
            )
            async for piece in pieces:
                yield piece
        except FileLostError:
            _log.error("file_lost", file_id=str(file_id), storage=content.storage)
            raise ContentUnavailableError(lost=file_id) from None
        except (FilesUnavailableError, DatabaseUnavailableError) as error:
            raise ContentUnavailableError from error

    async def is_any_due(self) -> bool:
        """Return whether files or objects wait to be swept."""
        async with self._database.statements(SERVICE) as connection:
            return bool(
                await connection.fetch(_UNATTACHED, self._unattached_for, 1)
                or (self._objects is not None and await connection.fetch(_DUE, 1))
            )

    async def sweep(self) -> int:
        """Delete files that no message has named in time, and objects without a file.

        Returns how many were deleted. Objects that can't be deleted now are left for later.
        """
        async with self._database.statements(SERVICE) as connection:
            old = await connection.fetch(_UNATTACHED, self._unattached_for, _AT_ONCE)
            if old:
                await connection.execute(_DELETE_UNATTACHED, [row["id"] for row in old])
        return len(old) + await self._erase_objects()

    async def _erase_objects(self) -> int:
        if self._objects is None:
            return 0
        async with self._database.statements(SERVICE) as connection:
            due = [FileId(row["file_id"]) for row in await connection.fetch(_DUE, _AT_ONCE)]
        for erased, file_id in enumerate(due):
            try:
                await self._objects.delete(file_id)
            except FilesUnavailableError:
                async with self._database.statements(SERVICE) as connection:
                    await connection.execute(_POSTPONED, due[erased:], _PAUSE)
                return erased
            async with self._database.statements(SERVICE) as connection:
                await connection.execute(_ERASED, file_id)
        return len(due)

    def _row(
        self,
        actor: Actor,
        inspected: Inspected,
        content: Content,
        *,
        name: str,
        origin: FileOrigin,
    ) -> FileRow:
        found, has_rendition = inspected.found, bool(inspected.rendition)
        return FileRow(
            id=new_id(),
            user_id=actor.user_id,
            name=name,
            content_type=found.content_type,
            size=content.size,
            sha256=bytes.fromhex(found.sha256),
            storage="postgres" if self._objects is None else "s3",
            origin=origin,
            width=found.width,
            height=found.height,
            pages=found.pages,
            tokens=found.tokens,
            model_type=found.model_type if has_rendition else None,
            model_size=len(inspected.rendition) if has_rendition else None,
            text=found.text,
        )

    async def _write_objects(
        self, objects: ObjectStorage, file_id: FileId, contents: dict[Variant, Content]
    ) -> None:
        async with self._database.statements(SERVICE) as connection:
            await connection.execute(_ANNOUNCE, file_id, _ANNOUNCED_FOR)
        try:
            for variant, content in contents.items():
                await objects.write(file_id, variant, content)
        except FilesUnavailableError:
            await self._drop(file_id)
            raise

    async def _drop(self, file_id: FileId) -> None:
        """Let the next sweep delete the objects of a file that is not stored."""
        async with self._database.statements(SERVICE) as connection:
            await connection.execute(_DROP, file_id)

    async def _store(
        self, actor: Actor, row: FileRow, contents: dict[Variant, Content], *, key: str | None
    ) -> Result[File, Refusal]:
        entitled = await self._accounts.entitlements_of(actor.user_id)

        async def create(session: AsyncSession) -> Result[File, LimitReached | StorageFull]:
            await lock(session, "files", of=actor.user_id)
            count, stored = await _usage(session, actor)
            if count >= entitled.max_files:
                return Err(LimitReached(entitled.max_files))
            if stored + _weight(row) > entitled.max_stored_bytes:
                return Err(StorageFull(entitled.max_stored_bytes))
            session.add(row)
            await session.flush()
            if row.storage == "postgres":
                for variant, content in contents.items():
                    await store_pieces(
                        session, actor, content, file_id=FileId(row.id), variant=variant
                    )
            return Ok(File.model_validate(row))

        return await create_once(
            self._database,
            actor,
            key,
            request=UploadIdentity(name=row.name, sha256=row.sha256.hex()),
            resource_id=row.id,
            create=create,
            find=lambda earlier: self.get(actor, FileId(UUID(earlier))),
        )

    async def _full(self, actor: Actor, row: FileRow) -> StorageFull | None:
        """Return whether nothing of this size would be stored: then it isn't written, either.

        What really fits is decided under the lock; a retry with a key may find its file.
        """
        entitled = await self._accounts.entitlements_of(actor.user_id)
        limit = entitled.max_stored_bytes
        return StorageFull(limit) if _weight(row) > limit else None


async def _usage(session: AsyncSession, actor: Actor) -> tuple[int, int]:
    """Return how many files the actor has, and their bytes."""
    weight = col(FileRow.size) + func.coalesce(col(FileRow.model_size), 0)
    query = select(func.count(), func.coalesce(func.sum(weight), 0))
    count, stored = (await session.exec(query.where(col(FileRow.user_id) == actor.user_id))).one()
    return count, int(stored)


def _weight(row: FileRow) -> int:
    return row.size + (row.model_size or 0)
