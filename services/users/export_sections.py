"""Owns what an export of an account holds: for each section its rows, and what is left out why.

The queries run past the policies, since users are kept from some of the tables. Each of them
names the user, as `$1`.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the document: the rows of one table, or the only one there is.

    `at_once` bounds how many are held in memory.
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
        "SELECT id, email, display_name, role, status, created_at, updated_at "
        "FROM users WHERE id = $1",
        single=True,
    ),
    Section(
        "preferences",
        "preferences",
        "SELECT language, time_zone, instructions, default_model, use_memories, use_knowledge, "
        "auto_accept_memories, disabled_tools, tool_approvals, updated_at "
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
        "chats",
        "chats",
        "SELECT id, title, archived_at, created_at, updated_at "
        "FROM chats WHERE user_id = $1 ORDER BY id",
    ),
    Section(
        "messages",
        "messages",
        "SELECT id, chat_id, turn_id, role, content, status, superseded, created_at "
        "FROM messages WHERE user_id = $1 ORDER BY chat_id, turn_id, id",
    ),
    Section(
        "turns",
        "turns",
        "SELECT id, chat_id, user_message_id, assistant_message_id, regenerates, status, model, "
        "prompt, error_code, error_message, input_tokens, output_tokens, cache_read_tokens, "
        "cache_write_tokens, cost_usd, created_at, started_at, finished_at "
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
        "SELECT turn_id, step, attempt, model, status, text, blocks, stop_reason, created_at, "
        "updated_at FROM steps WHERE user_id = $1 ORDER BY turn_id, step",
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
        "SELECT id, kind, content, importance, status, source_turn_id, created_at, updated_at "
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
        # What was uploaded says no more than its text where it is text.
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
        "created_at, settled_at "
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
        # Where somebody else was, and by which request, is theirs.
        "SELECT id, actor_type, action, resource_type, resource_id, details, created_at, "
        "CASE WHEN actor_id = $1 THEN host(address) END AS address, "
        "CASE WHEN actor_id = $1 THEN request_id END AS request_id "
        "FROM audit_log WHERE actor_id = $1 OR subject_id = $1 ORDER BY id",
    ),
)

LEFT_OUT: Final = {
    "credentials": "a hash of the password, of use to nobody but a thief",
    "refresh_tokens": "hashes of tokens; when somebody signed in is in the audit log",
    "creations": "hashes of requests, whose outcome is in the other sections",
    "tool_tests": "what an administrator tries tools with, for a day at most",
    "passages": "pieces of the texts of documents, which are there whole",
}
"""Tables with a user's rows that are no section, and why."""
