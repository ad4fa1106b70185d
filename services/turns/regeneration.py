"""Regenerates an answer: a new turn gives the same question another answer, beside the first."""

from enum import StrEnum
from typing import Final, TypeAlias

import asyncpg

from schema.actors import Actor
from schema.budgets import BudgetExceeded
from schema.ids import ApiKeyId, TurnId, new_id
from schema.plans import Entitlements
from schema.result import Err, Ok, Result
from schema.tables import TurnRow
from schema.turn_options import options_of
from schema.turns import RegenerateTurnRequest, TurnStatus
from services.audit import current_origin
from services.auth.accounts import AccountCache
from services.database import Connection, Database
from services.resources import Conflict, Fingerprint, Unreachable, why_unreachable
from services.subscriptions.budget_alerts import BudgetAlerts
from services.subscriptions.budget_use import exceeded_budget, exhausted_budget
from services.subscriptions.plans import allows_model
from services.turns.acceptance import Accepted, accepted_turn, replayed_turn
from services.turns.options import OptionRefusal, OptionRules
from services.turns.rows import turn_row
from services.turns.steering import LAST_ASKED

_LOCK_CHAT: Final = """
SELECT chats.id FROM chats JOIN turns ON turns.chat_id = chats.id
WHERE turns.id = $1 FOR UPDATE OF chats
"""

# Separate statements, after the lock: only then do they see what it waited for.
_SITUATION: Final = f"""
SELECT budget.*, turns.*, EXISTS (
    SELECT FROM turns AS other WHERE other.chat_id = turns.chat_id
    AND other.status IN ('queued', 'running', 'awaiting_approval')
) AS is_busy, EXISTS (SELECT FROM messages WHERE id = turns.user_message_id) AS has_question
FROM turns LEFT JOIN ({exhausted_budget(user="$2", api_key="$3")}) AS budget ON true
WHERE turns.id = $1
"""  # noqa: S608 -- no value is written into it

_STORE: Final = f"""
WITH turn AS (
    INSERT INTO turns (id, chat_id, user_id, user_message_id, active, model, regenerates,
                       idempotency_key, request_hash, api_key_id, request_id, options)
    SELECT $2, chat_id, user_id, {LAST_ASKED}, true, coalesce($3, model), id, $4, $5, $6, $7, $8
    FROM turns WHERE id = $1
    ON CONFLICT (user_id, idempotency_key) DO NOTHING
    RETURNING *
), leaf AS (
    UPDATE chats SET leaf_id = user_message_id FROM turn WHERE chats.id = turn.chat_id
)
SELECT * FROM turn
"""  # noqa: S608 -- a constant of ours


class RegenerationRefusal(StrEnum):
    """Why an answer can't be regenerated."""

    BUSY = "busy"
    UNKNOWN_MODEL = "unknown_model"
    MODEL_NOT_ALLOWED = "model_not_allowed"


Refusal: TypeAlias = RegenerationRefusal | BudgetExceeded


class TurnRegeneration:
    """Answers questions again. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        accounts: AccountCache,
        budgets: BudgetAlerts,
        *,
        options: OptionRules,
        models: tuple[str, ...],
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._models = models
        self._budgets = budgets
        self._options = options

    async def regenerate(
        self,
        actor: Actor,
        turn_id: TurnId,
        request: RegenerateTurnRequest,
        *,
        key: str | None,
        api_key_id: ApiKeyId | None = None,
    ) -> Result[Accepted, Refusal | OptionRefusal | Conflict | Unreachable]:
        """Store a turn that answers the question of `turn_id` again.

        It counts towards the budget of `api_key_id`, not of the key of the earlier turn.
        Idempotency: retrying with the same key and request returns the original turn, whatever
        is left of the budget by then.
        """
        if request.model is not None and request.model not in self._models:
            return Err(RegenerationRefusal.UNKNOWN_MODEL)
        account = await self._accounts.get(actor.user_id)
        problem, replaced = await self._options.problem_of_tools(request, account), None
        async with self._database.statements(actor) as connection:
            if await connection.fetchrow(_LOCK_CHAT, turn_id) is not None:
                replaced = await self._replace(
                    connection,
                    actor,
                    turn_id,
                    request,
                    key=key,
                    api_key_id=api_key_id,
                    plan=None if account is None else account.entitlements,
                    problem=problem,
                )
        if replaced is None:
            return Err(await why_unreachable(self._database, TurnRow, turn_id))
        await self._budgets.notice_refusal(actor.user_id, replaced, api_key_id=api_key_id)
        return replaced

    async def _replace(
        self,
        connection: Connection,
        actor: Actor,
        turn_id: TurnId,
        request: RegenerateTurnRequest,
        *,
        key: str | None,
        api_key_id: ApiKeyId | None,
        plan: Entitlements | None,
        problem: OptionRefusal | None,
    ) -> Result[Accepted, Refusal | OptionRefusal | Conflict | Unreachable]:
        """Decide under the chat's lock, and store what is accepted."""
        # Without `stream`, as for a message.
        fingerprint = Fingerprint(f"regenerate {turn_id}", request, without="stream")
        earlier = await replayed_turn(connection, actor, key, fingerprint)
        if earlier is not None:
            return earlier
        turn = await connection.fetchrow(_SITUATION, turn_id, actor.user_id, api_key_id)
        refusal = _refusal(turn, request, plan) or problem
        if turn is None or plan is None or refusal is not None:
            return Err(refusal or Unreachable.MISSING)
        model = request.model or turn["model"]
        options = self._options.decide(request, model, plan, earlier=options_of(turn["options"]))
        if isinstance(options, Err):
            return options
        if (exceeded := exceeded_budget(turn)) is not None:
            return Err(exceeded)
        # Created under the chat's lock: turns are in the order of their ids.
        stored = await connection.fetchrow(
            _STORE,
            turn_id,
            new_id(),
            request.model,
            key,
            fingerprint.hash,
            api_key_id,
            current_origin().request_id,
            options.value.stored(),
        )
        if stored is None:
            return Err(Conflict.KEY_REUSED)
        return Ok(accepted_turn(turn_row(stored), replayed=False))


def _refusal(
    turn: asyncpg.Record | None, request: RegenerateTurnRequest, plan: Entitlements | None
) -> RegenerationRefusal | Unreachable | None:
    """Return why it can't be answered now; it may have been deleted after the lock was found.

    An imported conversation may begin with an answer, which has no question.
    """
    if turn is None or not turn["has_question"]:
        return Unreachable.MISSING
    if turn["is_busy"] or not TurnStatus(turn["status"]).is_final:
        return RegenerationRefusal.BUSY
    if not allows_model(plan, request.model or turn["model"]):
        return RegenerationRefusal.MODEL_NOT_ALLOWED
    return None
