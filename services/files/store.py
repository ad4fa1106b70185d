"""Where the contents of files are: in the database, in pieces, or in S3-compatible storage.

Neither is ever read or written whole: a process holds a piece at a time. What a file is, who owns
it and where it is attached is always in the database, under its policies.

FilesUnavailableError    the storage can't be reached, or refuses
FileLostError            the storage has no such object, or another one
"""

import asyncio
import mmap
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, Protocol, TypeAlias

from sqlalchemy import insert
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Buffer

from schema.actors import Actor
from schema.ids import FileId
from schema.tables import FilePieceRow
from services.database import Database

Variant: TypeAlias = Literal["original", "model"]

PIECE_BYTES: Final = 384 * 1024
"""The size of a piece; as base64 it needs no padding."""


class FilesUnavailableError(Exception):
    """The storage of files can't be reached, or refuses; another attempt may succeed."""

    def __init__(self) -> None:
        super().__init__("The storage of files is unavailable.")


class FileLostError(Exception):
    """The content of a file is gone, although the file is not."""

    def __init__(self) -> None:
        super().__init__("The content of the file is missing.")


class Content(Protocol):
    """What is to be stored: an open file, or bytes."""

    @property
    def size(self) -> int:
        """Its size in bytes."""
        ...

    def piece(self, start: int, size: int) -> bytes:
        """Return the bytes from `start` on, `size` of them if there are as many."""
        ...

    def as_buffer(self) -> AbstractContextManager[Buffer]:
        """Return all of it, for what takes it in one go; a file stays where it is."""
        ...


class OpenFile:
    """The content of an open file; its position doesn't matter."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.size = os.fstat(file).st_size

    def piece(self, start: int, size: int) -> bytes:
        """Return a piece."""
        return os.pread(self._file, size, start)

    def as_buffer(self) -> AbstractContextManager[Buffer]:
        """Return it as mapped memory, which is the system's and not this process's."""
        return mmap.mmap(self._file, self.size, prot=mmap.PROT_READ)


class Bytes:
    """A content in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def piece(self, start: int, size: int) -> bytes:
        """Return a piece."""
        return self._data[start : start + size]

    def as_buffer(self) -> AbstractContextManager[Buffer]:
        """Return it."""
        return nullcontext(self._data)


async def pieces_of(content: Content) -> AsyncIterator[bytes]:
    """Yield a content in pieces, read in a thread."""
    for start in range(0, content.size, PIECE_BYTES):
        yield await asyncio.to_thread(content.piece, start, PIECE_BYTES)


_READ_PIECE: Final = """
SELECT data FROM file_pieces WHERE file_id = $1 AND variant = $2 AND position = $3
"""


async def store_pieces(
    session: AsyncSession, actor: Actor, content: Content, *, file_id: FileId, variant: Variant
) -> None:
    """Store a content in the database, in the transaction that stores its file."""
    position = 0
    async for data in pieces_of(content):
        place = {"file_id": file_id, "variant": variant, "position": position}
        await session.exec(insert(FilePieceRow).values(**place, user_id=actor.user_id, data=data))
        position += 1


class StoredPieces:
    """Reads contents from the database. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self, actor: Actor, file_id: FileId, variant: Variant, *, start: int, end: int
    ) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to `end`; no connection is held between two pieces.

        Errors: FileLostError, for a file that was deleted, too.
        """
        for position, (first, last) in _parts(start, end):
            async with self._database.statements(actor) as connection:
                data: bytes | None = await connection.fetchval(
                    _READ_PIECE, file_id, variant, position
                )
            if data is None or len(data) < last:
                raise FileLostError
            yield data[first:last]


def _parts(start: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the positions of the pieces that hold a range, and what of them belongs to it."""
    for position in range(start // PIECE_BYTES, -(-end // PIECE_BYTES)):
        offset = position * PIECE_BYTES
        yield position, (max(start - offset, 0), min(end - offset, PIECE_BYTES))
