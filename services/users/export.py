"""Owns exporting an account: everything that is kept of its owner, as one JSON document.

It is written to a file before any of it is sent. A slow reader holds no connection so, and no
failure comes in mid-document. What the document holds is export_sections.py's.
"""

import json
from datetime import datetime
from decimal import Decimal
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final
from uuid import UUID

import asyncpg
from pydantic.alias_generators import to_camel

from schema.actors import SERVICE, Actor
from schema.audit import AuditAction, ResourceType
from schema.tables.columns import utc_now
from schema.wire import format_time, format_usd
from services.audit.recording import record
from services.database import Connection, Database
from services.users.export_sections import SECTIONS, Section

_IN_MEMORY: Final = 1024 * 1024


class UserExport:
    """Exports accounts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, actor: Actor) -> IO[bytes]:
        """Return the document as a file that is at its beginning; whoever gets it closes it.

        All of it is as of one moment. That it was asked for is in the audit log, and in itself.
        """
        async with self._database.transaction(actor) as session:
            account = (ResourceType.USER, actor.user_id)
            record(session, actor, AuditAction.USER_EXPORTED, account)
        # Handed over to the caller, who closes it.
        file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        try:
            # The service, since users are kept from some of their rows: hashes are beside them.
            async with self._database.statements(SERVICE, snapshot=True) as connection:
                await _write(connection, actor, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file


async def _write(connection: Connection, actor: Actor, file: IO[bytes]) -> None:
    file.write(f'{{"exportedAt":{_json(utc_now())}'.encode())
    for section in SECTIONS:
        file.write(f",{_json(to_camel(section.name))}:".encode())
        if section.single:
            found = await connection.fetchrow(section.query, actor.user_id)
            file.write(_json(None if found is None else _shown(found)).encode())
        else:
            await _write_rows(connection, section, actor, file)
    file.write(b"}")


async def _write_rows(
    connection: Connection, section: Section, actor: Actor, file: IO[bytes]
) -> None:
    separator = "["
    rows = connection.cursor(section.query, actor.user_id, prefetch=section.at_once)
    async for row in rows:
        file.write(f"{separator}{_json(_shown(row))}".encode())
        separator = ","
    file.write(b"[]" if separator == "[" else b"]")


def _shown(row: asyncpg.Record) -> dict[str, Any]:
    return {to_camel(name): value for name, value in row.items()}


def _json(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: object) -> str:
    """Return what JSON has no form of as it stands in all other answers."""
    match value:
        case datetime():
            return format_time(value)
        case Decimal():
            return format_usd(value)
        case UUID():
            return str(value)
        case _:
            raise TypeError(type(value).__name__)
