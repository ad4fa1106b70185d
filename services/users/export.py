"""The export of an account: everything stored about its owner, as one JSON document.

It is written to a file before any of it is sent, so that a slow reader holds no connection and no
failure interrupts the document. The queries of its sections bypass the policies, because users may
not read some of the tables: each names the user as `$1`.
"""

import json
from dataclasses import dataclass
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
from services.audit import record
from services.database import Connection, Database

_IN_MEMORY: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the document: the rows of one table, or its only row.

    `at_once` bounds how many rows are in memory.
    """

    name: str
    table: str
    query: str
    single: bool = False
    at_once: int = 100


SECTIONS: Final = (
    Section(
        "profile",
        "users",
        "SELECT id, email, email_verified, pending_email, display_name, role, status, created_at, "
        "updated_at FROM users WHERE id = $1",
        single=True,
    ),
    Section(
        "preferences",
        "preferences",
        "SELECT language, time_zone, instructions, default_model, use_memories, use_knowledge, "
        "auto_accept_memories, extract_memories, disabled_tools, tool_approvals, updated_at "
        "FROM preferences WHERE user_id = $1",
        single=True,
    ),
    Section(
        "subscription",
        "subscriptions",
        "SELECT plan_id, plans.name AS plan_name, started_at FROM subscriptions "
        "JOIN plans ON plans.id = plan_id WHERE user_id = $1",
        single=True,
    ),
    Section(
        "budgets",
        "budgets",
        "SELECT scope, subject_id, budget_usd, daily_budget_usd, budget_tokens, "
        "daily_budget_tokens, created_at, updated_at "
        "FROM budgets WHERE user_id = $1 ORDER BY scope, subject_id",
    ),
    Section(
        "identities",
        "identities",
        "SELECT issuer, subject, created_at FROM identities WHERE user_id = $1 "
        "ORDER BY issuer, subject",
    ),
    Section(
        "api_keys",
        "api_keys",
        "SELECT id, name, start, permissions, created_at, expires_at, last_used_at, revoked_at "
        "FROM api_keys WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "sessions",
        "refresh_tokens",
        # Of each token the hash is left out: it is useful only to an attacker.
        "SELECT family_id AS session_id, user_agent, network, created_at, used_at, revoked_at, "
        "expires_at FROM refresh_tokens WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "mails",
        "mails",
        "SELECT id, kind, address, status, created_at, finished_at, used_at "
        "FROM mails WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "chats",
        "chats",
        "SELECT id, nullif(title, '') AS title, archived_at, pinned_at, tags, leaf_id, "
        "created_at, updated_at "
        "FROM chats WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "messages",
        "messages",
        "SELECT id, chat_id, turn_id, parent_id, role, content, status, joined_step, "
        "client_metadata, structured, created_at "
        "FROM messages WHERE user_id = $1 ORDER BY chat_id, turn_id, id",
    ),
    Section(
        "shares",
        "shares",
        "SELECT id, chat_id, message_id, nullif(title, '') AS title, created_at, expires_at "
        "FROM shares WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "feedback",
        "feedback",
        "SELECT message_id, rating, reason, text, created_at, updated_at "
        "FROM feedback WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "chat_summaries",
        "chat_summaries",
        "SELECT id, chat_id, message_id, version, content, messages, model, created_at "
        "FROM chat_summaries WHERE user_id = $1 ORDER BY chat_id, id",
    ),
    Section(
        "files",
        "files",
        "SELECT id, name, content_type, size, width, height, pages, origin, attached, created_at, "
        "'/api/v1/files/' || id || '/content' AS content_path "
        "FROM files WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "attachments",
        "attachments",
        "SELECT message_id, turn_id, step, tool_call_id, position, file_id, name, content_type, "
        "size FROM attachments WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "turns",
        "turns",
        "SELECT id, chat_id, user_message_id, assistant_message_id, regenerates, origin, steers, "
        "joined_step, status, model, prompt, options, error_code, error_message, input_tokens, "
        "output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, created_at, "
        "started_at, finished_at "
        "FROM turns WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "turn_contexts",
        "turn_contexts",
        "SELECT turn_id, layers, sources, created_at "
        "FROM turn_contexts WHERE user_id = $1 ORDER BY turn_id",
        at_once=10,
    ),
    Section(
        "steps",
        "steps",
        "SELECT turn_id, step, attempt, model, status, text, thinking, blocks, problem, "
        "stop_reason, created_at, updated_at FROM steps WHERE user_id = $1 ORDER BY turn_id, step",
    ),
    Section(
        "tool_calls",
        "tool_calls",
        "SELECT turn_id, step, tool_call_id, position, name, input, edited_input, status, "
        "decision, decision_reason, output, blocks, cost_usd, created_at, decided_at, "
        "started_at, finished_at FROM tool_calls WHERE user_id = $1 "
        "ORDER BY turn_id, step, position",
        at_once=10,
    ),
    Section(
        "chat_tool_approvals",
        "chat_tool_approvals",
        "SELECT chat_id, tool, created_at FROM chat_tool_approvals WHERE user_id = $1 "
        "ORDER BY chat_id, tool",
    ),
    Section(
        "memories",
        "memories",
        "SELECT id, kind, content, importance, status, source_turn_id, passage, replaces_id, "
        "replaced_by_id, pinned, expires_at, created_at, updated_at "
        "FROM memories WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "documents",
        "documents",
        "SELECT id, title, latest_version, published_version, created_at, updated_at "
        "FROM documents WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "document_versions",
        "document_versions",
        # The upload of a text file holds no more than its text.
        "SELECT document_id, number, content_type, status, problem, published, content, "
        "CASE WHEN content IS NULL OR content_type NOT LIKE 'text/%' "
        "THEN encode(source, 'base64') END AS source_base64, created_at, finished_at "
        "FROM document_versions WHERE user_id = $1 ORDER BY document_id, number",
        at_once=1,
    ),
    Section(
        "ledger",
        "ledger",
        "SELECT id, turn_id, step, attempt, kind, tool_call_id, model, status, estimated, "
        "input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, "
        "api_key_id, reserved_usd, reserved_tokens, created_at, settled_at "
        "FROM ledger WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "alerts",
        "alerts",
        "SELECT id, kind, severity, resource_type, resource_id, details, created_at "
        "FROM alerts WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "audit_log",
        "audit_log",
        # The network and request of another actor are not the owner's data.
        "SELECT id, actor_type, action, resource_type, resource_id, details, created_at, "
        "CASE WHEN actor_id = $1 THEN host(address) END AS address, "
        "CASE WHEN actor_id = $1 THEN request_id END AS request_id "
        "FROM audit_log WHERE actor_id = $1 OR subject_id = $1 ORDER BY id",
    ),
)

LEFT_OUT: Final = {
    "file_pieces": "contents of files; each file names the path to download it from",
    "credentials": "a hash of the password, useful only to an attacker",
    "creations": "hashes of requests; the created resources are in other sections",
    "tool_tests": "test inputs of administrators, kept for a day at most",
    "due_works": "names of what is done seconds after a turn, for its time in the queue",
    "passages": "pieces of documents, which are exported whole",
    "usage_days": "sums of the ledger, which is exported whole",
}
"""Tables with rows of users that are not exported, and why."""


class UserExport:
    """Exports accounts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, actor: Actor) -> IO[bytes]:
        """Return the document as a file, positioned at its start; the caller closes it.

        All of it is a snapshot of one moment. The audit log, and so the export, records it.
        """
        async with self._database.transaction(actor) as session:
            account = (ResourceType.USER, actor.user_id)
            record(session, actor, AuditAction.USER_EXPORTED, account)
        # The caller closes it.
        file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        try:
            # As the service: some rows are hidden from users, because they hold hashes, too.
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
            file.write(_json(None if found is None else _camel_case(found)).encode())
        else:
            await _write_rows(connection, section, actor, file)
    file.write(b"}")


async def _write_rows(
    connection: Connection, section: Section, actor: Actor, file: IO[bytes]
) -> None:
    separator = "["
    rows = connection.cursor(section.query, actor.user_id, prefetch=section.at_once)
    async for row in rows:
        file.write(f"{separator}{_json(_camel_case(row))}".encode())
        separator = ","
    file.write(b"[]" if separator == "[" else b"]")


def _camel_case(row: asyncpg.Record) -> dict[str, Any]:
    return {to_camel(name): value for name, value in row.items()}


def _json(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: object) -> str:
    """Return a value that JSON has no type for in the form of all other responses."""
    match value:
        case datetime():
            return format_time(value)
        case Decimal():
            return format_usd(value)
        case UUID():
            return str(value)
        case _:
            raise TypeError(type(value).__name__)
