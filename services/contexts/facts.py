"""What a turn reads before its prompt is assembled, in one statement.

It stands on the way to the first token, where each round trip counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg

from schema.contexts import ContextSource, PromptLayers
from schema.tools import approval_policies
from schema.turns import TurnReference
from schema.users import UserRole, UserStatus
from services.contexts.branches import (
    ARRAYS,
    SKELETON,
    BranchMessage,
    FollowedBranch,
    follow,
    messages_from,
)
from services.database import Connection
from services.knowledge.search import LONGEST_QUERY
from services.prompts.base_prompts import ActiveVersion
from services.prompts.correction import LastCount, correction_by
from services.tools.permission import Audience

_MOST_MESSAGES: Final = 5_000
"""How many of a chat's newest messages are looked at; more do not fit into a prompt."""

_SUMMARIES: Final = 5
"""How many of a chat's summaries are looked at, the newest: others are of abandoned branches."""

# The message, or the searched part of a long one, is read only if there is something to search.
# Whether there is knowledge is asked of documents, which have an index for each way of seeing one.
# A conversation is looked at from where the turn before it began to send it, so that a long one
# costs no more than what is sent of it.
_FACTS: Final = f"""
SELECT turns.active AND turns.cancel_requested_at IS NULL
           AND turns.status IN ('queued', 'running', 'awaiting_approval') AS may_run,
       turns.user_message_id, said.*, summaries.*, before.whole_from, before.summary_id,
       users.role, users.status AS user_status, users.display_name,
       wishes.language, wishes.time_zone, wishes.instructions,
       wishes.disabled_tools, wishes.tool_approvals AS own_approvals,
       turns.model, turns.options -> 'tools' AS asked_tools,
       turns.prompt IS NOT NULL AS is_prepared,
       (turns.prompt ->> 'correction')::float8 AS correction, last.counted, last.estimated,
       plans.name AS plan, plans.entitlements -> 'tools' AS entitled_tools,
       plans.entitlements -> 'toolApprovals' AS plan_approvals,
       prompts.id AS prompt_id, prompts.active_version, stored.layers, stored.sources,
       found.memories, found.knowledge,
       (SELECT version FROM tool_catalogue) AS tools_version,
       CASE WHEN stored.turn_id IS NULL AND (found.memories OR found.knowledge)
            THEN (SELECT left(content, $4) FROM messages
                  WHERE messages.id = turns.user_message_id) END AS question
FROM turns
JOIN users ON users.id = turns.user_id
LEFT JOIN preferences AS wishes ON wishes.user_id = turns.user_id
LEFT JOIN prompts ON prompts.name = 'base'
LEFT JOIN turn_contexts AS stored ON stored.turn_id = turns.id
LEFT JOIN plans ON plans.id = coalesce(
    (SELECT plan_id FROM subscriptions WHERE subscriptions.user_id = $3),
    (SELECT id FROM plans WHERE is_default))
LEFT JOIN messages AS asked ON asked.id = turns.user_message_id
LEFT JOIN messages AS replied_to ON replied_to.id = asked.parent_id
LEFT JOIN turns AS earlier ON earlier.id = replied_to.turn_id AND earlier.model = turns.model
CROSS JOIN LATERAL (
    SELECT (decided ->> 'firstTurnId')::uuid AS first,
           (decided ->> 'wholeFromTurnId')::uuid AS whole_from,
           (decided ->> 'summaryId')::uuid AS summary_id
    FROM coalesce(turns.prompt, earlier.prompt) AS decided
) AS before
CROSS JOIN LATERAL (
    SELECT {ARRAYS} FROM (
        SELECT {SKELETON} FROM messages AS said
        WHERE chat_id = $2 AND turn_id >= coalesce(before.first, '{UUID(int=0)}')
          AND (turn_id, id) <= (asked.turn_id, asked.id)
        ORDER BY turn_id DESC, id DESC LIMIT {_MOST_MESSAGES}
    ) AS newest
) AS said
CROSS JOIN LATERAL (
    SELECT array_agg(id) AS summary_ids, array_agg(message_id) AS summarised_ids,
           array_agg(content) AS summaries
    FROM (
        SELECT id, message_id, content FROM chat_summaries WHERE chat_id = $2
        ORDER BY id = before.summary_id DESC NULLS LAST, id DESC LIMIT {_SUMMARIES}
    ) AS newest
) AS summaries
CROSS JOIN LATERAL (
    SELECT coalesce(wishes.use_memories, true) AND EXISTS (
               SELECT FROM memories WHERE user_id = $3 AND status = 'accepted'
               AND (expires_at IS NULL OR expires_at > now())) AS memories,
           coalesce(wishes.use_knowledge, true) AND (
               EXISTS (SELECT FROM documents WHERE user_id = $3)
               OR EXISTS (SELECT FROM documents WHERE published_version IS NOT NULL)) AS knowledge
) AS found
LEFT JOIN LATERAL (
    SELECT ledger.input_tokens + ledger.cache_read_tokens + ledger.cache_write_tokens AS counted,
           steps.prompt_tokens AS estimated
    FROM (
        SELECT id FROM turns WHERE chat_id = $2 AND id < $1 ORDER BY id DESC LIMIT 5
    ) AS before
    JOIN steps ON steps.turn_id = before.id AND steps.model = turns.model
    JOIN ledger ON ledger.turn_id = steps.turn_id AND ledger.step = steps.step
               AND ledger.attempt = steps.attempt AND ledger.kind = 'model'
    WHERE steps.prompt_tokens > 0 AND NOT ledger.estimated
    ORDER BY before.id DESC, steps.step DESC LIMIT 1
) AS last ON true
WHERE turns.id = $1
"""  # noqa: S608 -- the parts are constants of ours


class Summary(NamedTuple):
    """The newest summary of a branch; `is_next` says that the messages behind it are all there."""

    id: UUID
    content: str
    is_next: bool


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What is known of a turn before its prompt is assembled.

    `audience` is who the tools are for, None for a user who may no longer sign in; `stored` is the
    context that was gathered before, if any; `asked_tools` are those that the message names, None
    for all. `question` is the message, if it is worth searching
    for. `correction` is the factor of the estimates of tokens: the one that the turn was prepared
    with, or what follows from the last count in the chat. `whole_from` is the turn from which on
    the turn before this one sent results of tools whole.
    """

    may_run: bool
    model: str
    branch: FollowedBranch
    correction: float
    display_name: str | None
    language: str | None
    time_zone: str | None
    instructions: str | None
    disabled_tools: frozenset[str]
    audience: Audience | None
    active_prompt: ActiveVersion | None
    stored: tuple[PromptLayers, tuple[ContextSource, ...]] | None
    has_memories: bool
    has_knowledge: bool
    question: str | None
    tools_version: int
    plan: str | None = None
    whole_from: UUID | None = None
    summary: Summary | None = None
    asked_tools: frozenset[str] | None = None

    @property
    def sizes(self) -> Sequence[BranchMessage]:
        """The messages that are sent if they fit, the new one last."""
        return self.branch.sent


async def read_facts(
    connection: Connection, turn: TurnReference, *, most_tokens: int
) -> TurnFacts | None:
    """Return the facts of a turn, or None if the turn was deleted.

    Units: `most_tokens` is how much of the conversation is looked at, by the uncorrected estimate.
    """
    row = await connection.fetchrow(_FACTS, turn.turn_id, turn.chat_id, turn.user_id, LONGEST_QUERY)
    return None if row is None else _facts(row, most_tokens)


def _facts(row: asyncpg.Record, most_tokens: int) -> TurnFacts:
    summarised = row["summarised_ids"] or ()
    branch = follow(
        messages_from(row),
        row["user_message_id"],
        most_tokens=most_tokens,
        summarised=summarised,
    )
    return TurnFacts(
        may_run=row["may_run"],
        model=row["model"],
        correction=_correction(row),
        branch=branch,
        display_name=row["display_name"],
        language=row["language"],
        time_zone=row["time_zone"],
        instructions=row["instructions"],
        disabled_tools=frozenset(row["disabled_tools"] or ()),
        asked_tools=None if row["asked_tools"] is None else frozenset(row["asked_tools"]),
        audience=_audience(row),
        active_prompt=_active(row["prompt_id"], row["active_version"]),
        stored=_stored(row["layers"], row["sources"]),
        has_memories=row["memories"],
        has_knowledge=row["knowledge"],
        question=row["question"],
        tools_version=row["tools_version"],
        plan=row["plan"],
        whole_from=row["whole_from"],
        summary=_summary(row, branch.before_id),
    )


def _summary(row: asyncpg.Record, before_id: UUID | None) -> Summary | None:
    """Return the summary that ends where the branch was left, or that the turn before had."""
    ids, ends, contents = (
        row[name] or () for name in ("summary_ids", "summarised_ids", "summaries")
    )
    for wanted, places in ((before_id, ends), (row["summary_id"], ids)):
        if wanted in places:
            at = places.index(wanted)
            return Summary(ids[at], contents[at], is_next=ends[at] == before_id)
    return None


def _correction(row: asyncpg.Record) -> float:
    if row["is_prepared"]:
        return 1.0 if row["correction"] is None else row["correction"]
    if row["counted"] is None:
        return 1.0
    return correction_by(LastCount(row["counted"], row["estimated"]))


def _audience(row: asyncpg.Record) -> Audience | None:
    if row["user_status"] != UserStatus.ACTIVE:
        return None
    approvals = (row["plan_approvals"] or {}, row["own_approvals"] or {})
    return Audience(
        UserRole(row["role"]), row["entitled_tools"], tuple(map(approval_policies, approvals))
    )


def _active(prompt_id: UUID | None, number: int | None) -> ActiveVersion | None:
    return None if prompt_id is None or number is None else ActiveVersion(prompt_id, number)


def _stored(
    layers: dict[str, Any] | None, sources: list[dict[str, Any]] | None
) -> tuple[PromptLayers, tuple[ContextSource, ...]] | None:
    if layers is None:
        return None
    cited = tuple(ContextSource.model_validate(source) for source in sources or ())
    return PromptLayers.model_validate(layers), cited
