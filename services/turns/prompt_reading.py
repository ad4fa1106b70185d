"""Reads what an attempt at a step is to send: the prepared prompt, and what this turn has added.

Every attempt reads the same; nothing is cut here.
"""

import json
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from schema.contexts import PromptLayers
from schema.turn_options import TurnOptions, options_of
from schema.turns import PAUSED, CallModelInput
from services.database import Connection
from services.prompts.attachments import attached, read_attachments
from services.prompts.conversation import (
    EarlierCall,
    EarlierStep,
    JoinedMessage,
    PromptMaterial,
    SaidMessage,
)
from services.prompts.correction import LastCount, correction_by
from services.prompts.fitting import capped, work_tokens
from services.prompts.tokens import tokens_of
from services.prompts.window import MESSAGE_TOKENS
from services.turns.step_statements import CALLS_BEFORE
from services.turns.tool_work import as_the_model_knows, tool_work, work_of

_COLUMNS: Final = f"""
said.id, said.turn_id, said.role, said.status, said.content, said.work_tokens, said.brief_tokens,
said.joined_step, {MESSAGE_TOKENS} AS tokens
"""

# The branch as it was followed when the turn was prepared: all from its first turn on that is not
# listed as skipped. Where nothing is listed, it is followed again, which takes longer.
_SAID: Final = f"""
SELECT {_COLUMNS} FROM messages AS said
LEFT JOIN (
    SELECT skipped::uuid AS id FROM jsonb_array_elements_text(turns.prompt -> 'skipped') AS skipped
) AS others ON others.id = said.id
WHERE turns.prompt ? 'skipped' AND said.chat_id = $2 AND others.id IS NULL
  AND said.turn_id >= (turns.prompt ->> 'firstTurnId')::uuid
  AND (said.turn_id, said.id) <= (question.turn_id, question.id)
UNION ALL (
    WITH RECURSIVE branch AS (
        SELECT question.*, true AS is_sent WHERE NOT coalesce(turns.prompt ? 'skipped', false)
        UNION ALL
        SELECT said.*, NOT said.left_out AND (
                   said.role = 'assistant' OR branch.is_sent
                   AND (branch.role = 'assistant' OR branch.joined_step IS NOT NULL))
        FROM branch JOIN messages AS said ON said.id = branch.parent_id
        WHERE said.turn_id >= (turns.prompt ->> 'firstTurnId')::uuid
    )
    SELECT {_COLUMNS} FROM branch AS said WHERE is_sent
)
"""  # noqa: S608 -- the parts are constants of ours

# What was gathered when the turn was prepared, and the history, in one round trip. Most turns have
# no messages that steer them, and these are found by an index of such alone; files are looked for
# only where their user has attached any.
_PROMPT: Final = f"""
SELECT turns.prompt, turns.options, turn_contexts.layers, history.*, steering.*
FROM turns LEFT JOIN turn_contexts ON turn_contexts.turn_id = turns.id
LEFT JOIN messages AS question ON question.id = turns.user_message_id
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM attachments WHERE attachments.user_id = turns.user_id) AS files
) AS own
CROSS JOIN LATERAL (
    SELECT array_agg(role) AS roles, array_agg(content) AS contents, array_agg(tokens) AS tokens,
           array_agg(NOT is_whole) AS is_brief, array_agg(joined_step) AS joined_steps,
           array_agg(turn_id) AS turn_ids,
           array_agg(CASE WHEN own.files AND role = 'user'
                     THEN {attached("message_id = said.id")} END) AS attachments,
           array_agg(CASE WHEN is_whole THEN work_tokens ELSE brief_tokens END) AS work_tokens,
           array_agg(CASE WHEN role = 'assistant' AND coalesce(work_tokens > 0,
                              status <> 'failed'
                              AND EXISTS (SELECT FROM tool_calls WHERE turn_id = said.turn_id))
                     THEN {work_of("said.turn_id", whole="is_whole")} END) AS work
    FROM (
        SELECT said.*, coalesce(
            turn_id >= (turns.prompt ->> 'wholeFromTurnId')::uuid, true) AS is_whole
        FROM ({_SAID}) AS said ORDER BY turn_id, id
    ) AS said
) AS history
CROSS JOIN LATERAL (
    SELECT array_agg(ROW (asked.joined_step, messages.role, messages.content, messages.tokens,
                          ARRAY[messages.id, asked.id], {attached("message_id = messages.id")}
                         ) ORDER BY asked.id)
               FILTER (WHERE asked.joined_step IS NOT NULL) AS joined,
           bool_or(asked.status = 'queued') AS waits
    FROM turns AS asked JOIN messages ON messages.id = asked.user_message_id
    WHERE asked.steers = turns.id
) AS steering
WHERE turns.id = $1
"""  # noqa: S608 -- the parts are constants of ours

_STEPS: Final = """
SELECT steps.step, steps.blocks, steps.model, steps.prompt_tokens, steps.stop_reason, steps.problem,
       ledger.input_tokens + ledger.cache_read_tokens + ledger.cache_write_tokens AS counted
FROM steps LEFT JOIN ledger
    ON ledger.turn_id = steps.turn_id AND ledger.step = steps.step
   AND ledger.attempt = steps.attempt AND ledger.kind = 'model' AND NOT ledger.estimated
WHERE steps.turn_id = $1 AND steps.step < $2
ORDER BY steps.step
"""


class PreparedPrompt(NamedTuple):
    """What an attempt is to send, and how; a turn of an earlier release has no `layers`.

    `can_be_joined` says that messages wait to join the turn, and that they can before this step.
    Units: `correction` is the factor of its estimate.
    """

    layers: PromptLayers | None
    material: PromptMaterial
    correction: float
    can_be_joined: bool = False
    options: TurnOptions = TurnOptions()


async def read_prompt(connection: Connection, call: CallModelInput) -> PreparedPrompt | None:
    """Return what an attempt at the step is to send, or None if the turn was deleted."""
    turn = call.turn
    row = await connection.fetchrow(_PROMPT, turn.turn_id, turn.chat_id)
    if row is None:
        return None
    layers = None if row["layers"] is None else PromptLayers.model_validate(row["layers"])
    kept = row["prompt"] or {}
    tokens: dict[str, int] = kept.get("tokens", {})
    material = PromptMaterial(
        _history(row, layers, result_tokens=kept.get("resultTokens")),
        joined=[
            JoinedMessage(
                step, SaidMessage(role, text, size, attachments=read_attachments(files)), *ids
            )
            for step, role, text, size, ids, files in row["joined"] or ()
        ],
        layer_tokens=sum(tokens.values()) - tokens.get("conversation", 0),
    )
    options = options_of(row["options"])
    if options.response_schema is not None:
        schema_tokens = tokens_of(json.dumps(options.response_schema, ensure_ascii=False))
        material = material._replace(layer_tokens=material.layer_tokens + schema_tokens)
    prompt = PreparedPrompt(
        layers, material, kept.get("correction", 1.0), bool(row["waits"]), options
    )
    return prompt if call.step == 1 else await _with_steps(connection, call, prompt)


def _history(
    row: asyncpg.Record, layers: PromptLayers | None, *, result_tokens: int | None
) -> list[SaidMessage]:
    columns = (
        *("roles", "contents", "tokens", "work", "work_tokens", "is_brief", "joined_steps"),
        "attachments",
    )
    history: list[SaidMessage] = []
    answered_by: UUID | None = None
    for turn_id, said in zip(
        reversed(row["turn_ids"] or ()),
        reversed([*zip(*(row[name] or () for name in columns), strict=True)]),
        strict=True,
    ):
        role, content, tokens, found, size, is_brief, joined_step, attachments = said
        if role == "assistant":
            answered_by = turn_id
        # What joined a turn, but is answered by another, stands right behind its question.
        if joined_step is not None and turn_id != answered_by:
            joined_step = 0
        work = None
        # A turn that an earlier release prepared has none of that in its estimate.
        if found is not None and result_tokens is not None:
            work = tool_work(found, layers, is_brief=is_brief)
            work = work._replace(tokens=work_tokens(work) if size is None else size)
            work = capped(work, limit_tokens=result_tokens)
        files = read_attachments(attachments) if attachments else ()
        history.append(SaidMessage(role, content, tokens, work, joined_step, files))
    return history[::-1]


async def _with_steps(
    connection: Connection, call: CallModelInput, prompt: PreparedPrompt
) -> PreparedPrompt:
    """Add the earlier steps of the turn, the last of which corrects the estimate best."""
    steps = await connection.fetch(_STEPS, call.turn.turn_id, call.step)
    calls = await connection.fetch(CALLS_BEFORE, call.turn.turn_id, call.step)
    correction = prompt.correction
    for row in steps:
        if row["counted"] and row["prompt_tokens"] and row["model"] == call.model:
            correction = correction_by(LastCount(row["counted"], row["prompt_tokens"]))
    material = prompt.material._replace(
        steps=[_earlier_step(row, call.model) for row in steps],
        calls=[
            EarlierCall(
                row["step"],
                row["tool_call_id"],
                row["status"],
                row["output"],
                row["blocks"],
                as_the_model_knows(row["edited_input"], row["name"], prompt.layers),
                images=read_attachments(row["images"]),
            )
            for row in calls
        ],
    )
    # An answer that paused is continued as it is.
    is_paused = bool(steps) and steps[-1]["stop_reason"] == PAUSED
    return prompt._replace(
        material=material,
        correction=correction,
        can_be_joined=prompt.can_be_joined and not is_paused,
    )


def _earlier_step(row: asyncpg.Record, model: str) -> EarlierStep:
    """Return a step as the model gets it: no model reads the thoughts of another."""
    step = EarlierStep(row["step"], row["blocks"], row["problem"])
    return step if row["model"] == model else step.without_thinking()
