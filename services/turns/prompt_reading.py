"""Reads what an attempt at a step is to send: the prepared prompt, and what this turn has added.

Every attempt reads the same; nothing is cut here.
"""

import json
from typing import Any, Final, NamedTuple

import asyncpg

from schema.contexts import PromptLayers
from schema.turn_options import TurnOptions, options_of
from schema.turns import PAUSED, CallModelInput
from services.contexts.facts import branch_of_turn
from services.database import Connection
from services.prompts.conversation import (
    EarlierCall,
    EarlierStep,
    JoinedMessage,
    PromptMaterial,
    SaidMessage,
)
from services.prompts.correction import LastCount, correction_by
from services.prompts.tokens import tokens_of
from services.tools.offered_schema import names_of_input
from services.turns.step_statements import CALLS_BEFORE

_FIRST: Final = "said.turn_id >= (turns.prompt ->> 'firstTurnId')::uuid"

# What was gathered when the turn was prepared, and the history, in one round trip. Most turns have
# no messages that steer them, and these are found by an index of such alone.
_PROMPT: Final = f"""
SELECT turns.prompt, turns.options, turn_contexts.layers, said.roles, said.contents, said.tokens,
       steering.joined, steering.waits
FROM turns LEFT JOIN turn_contexts ON turn_contexts.turn_id = turns.id
CROSS JOIN LATERAL (
    {branch_of_turn(until=_FIRST, columns=", content")}
    SELECT array_agg(role ORDER BY turn_id, id) AS roles,
           array_agg(content ORDER BY turn_id, id) AS contents,
           array_agg(tokens ORDER BY turn_id, id) AS tokens
    FROM branch WHERE is_sent
) AS said
CROSS JOIN LATERAL (
    SELECT array_agg(ROW (asked.joined_step, messages.role, messages.content, messages.tokens,
                          ARRAY[messages.id, asked.id]) ORDER BY asked.id)
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
    row = await connection.fetchrow(_PROMPT, turn.turn_id)
    if row is None:
        return None
    layers = None if row["layers"] is None else PromptLayers.model_validate(row["layers"])
    kept = row["prompt"] or {}
    history = zip(row["roles"] or (), row["contents"] or (), row["tokens"] or (), strict=True)
    tokens: dict[str, int] = kept.get("tokens", {})
    material = PromptMaterial(
        [SaidMessage(*said) for said in history],
        joined=[
            JoinedMessage(step, SaidMessage(*said), *ids)
            for step, *said, ids in row["joined"] or ()
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
                _as_the_model_knows(row["edited_input"], row["name"], prompt.layers),
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


def _as_the_model_knows(
    tool_input: dict[str, Any] | None, tool: str, layers: PromptLayers | None
) -> dict[str, Any] | None:
    """Return a person's input in the names that the model was offered."""
    offered = () if layers is None else layers.offered
    schema = next((known.input_schema for known in offered if known.name == tool), None)
    if tool_input is None or schema is None:
        return tool_input
    return names_of_input(schema).for_model(tool_input)
