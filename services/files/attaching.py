"""Attaches files to messages and to results of tools, in the transaction that stores these.

The rows of the files are locked until then: one that is being deleted is not attached, and one
that is attached is not swept.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from schema.files import TEXT_TYPE
from schema.ids import FileId, MessageId, TurnId, new_id
from schema.result import Err, Ok, Result
from services.database import Connection
from services.prompts.attachments import MOST_BYTES, MOST_PAGES
from services.resources import InvalidField

_LOCK: Final = """
SELECT id, tokens, content_type, coalesce(pages, 0) AS pages, coalesce(model_size, size) AS bytes
FROM files WHERE id = ANY ($1) ORDER BY id FOR UPDATE
"""

_MARK: Final = "UPDATE files SET attached = true WHERE id = ANY ($1) AND NOT attached"

_ATTACH: Final = """
INSERT INTO attachments (id, user_id, message_id, turn_id, step, tool_call_id, position, file_id,
                         name, content_type, size)
SELECT named.id, files.user_id, $4, $5, $6, $7, named.position, files.id, files.name,
       files.content_type, files.size
FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) AS named (id, file_id, position)
JOIN files ON files.id = named.file_id
"""


async def lock_attachments(
    connection: Connection, file_ids: Sequence[FileId], *, takes_files: bool
) -> Result[int, InvalidField]:
    """Lock files that a message names, and return the tokens that they add to its prompt.

    `takes_files` is false for a model that takes texts alone.
    """
    rows = {row["id"]: row for row in await connection.fetch(_LOCK, list(file_ids))}
    for position, file_id in enumerate(file_ids):
        row = rows.get(file_id)
        if row is None:
            return _invalid("File not found.", position)
        if not takes_files and row["content_type"] != TEXT_TYPE:
            return _invalid("This model takes neither images nor PDFs.", position)
    sent = [row for row in rows.values() if row["content_type"] != TEXT_TYPE]
    if _sum(sent, "bytes") > MOST_BYTES:
        return _invalid(f"The files of a message are limited to {MOST_BYTES:,} bytes in total.")
    if _sum(sent, "pages") > MOST_PAGES:
        return _invalid(f"The PDFs of a message are limited to {MOST_PAGES} pages in total.")
    return Ok(_sum(list(rows.values()), "tokens"))


def _sum(rows: Sequence[asyncpg.Record], column: str) -> int:
    return sum(row[column] for row in rows)


def _invalid(message: str, position: int | None = None) -> Err[InvalidField]:
    place = "" if position is None else f".{position}"
    return Err(InvalidField(f"body.attachments{place}", message))


async def attach_to_message(
    connection: Connection, file_ids: Sequence[FileId], message_id: MessageId
) -> None:
    """Attach locked files to a message."""
    places = list(range(len(file_ids)))
    await _attach(connection, file_ids, places, message_id, None, None, None)


async def attach_to_call(
    connection: Connection,
    images: Mapping[int, FileId],
    *,
    turn_id: TurnId,
    step: int,
    tool_call_id: str,
) -> None:
    """Attach images to the result of a tool call, at their positions in it."""
    await _attach(connection, [*images.values()], [*images], None, turn_id, step, tool_call_id)


async def _attach(
    connection: Connection, file_ids: Sequence[FileId], places: Sequence[int], *to: object
) -> None:
    ids = [new_id() for _ in file_ids]
    await connection.execute(_ATTACH, ids, list(file_ids), list(places), *to)
    await connection.execute(_MARK, list(file_ids))
