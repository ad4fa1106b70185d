"""The SQL of steps and their ledger rows; `steps.py` shows when each statement runs.

$1 is the turn and $2 the step; in those that write to an attempt, but for BEGIN, $3 is its number.
Tokens and cost stand in the order of the ledger's columns.
"""

from typing import Final

from services.prompts.attachments import attached
from services.subscriptions.ledger import OPENED, spent

# An execution takes a step over unless the step is done, or a later attempt of the same
# activity holds it: so a worker presumed dead can't reclaim what was given to another. The
# number counts all attempts, whichever activity or run they belong to. The step's ledger row is
# opened with it, before any request is sent. A turn with a requested cancellation claims nothing,
# nor does one that can't reserve what the attempt may cost, nor one that has ended: its workflow
# may be of a backup of Temporal. A repetition of its last call finds that completed.
BEGIN: Final = f"""
WITH turn AS (
    SELECT cancel_requested_at IS NOT NULL
           OR (status IN ('completed', 'failed', 'cancelled') AND NOT EXISTS (
               SELECT FROM steps WHERE turn_id = $1 AND step = $2 AND steps.status = 'completed'
           )) AS is_to_stop,
           api_key_id
    FROM turns WHERE id = $1
), room AS MATERIALIZED (
    SELECT reserved.* FROM turn CROSS JOIN LATERAL everturn_reserve(
        $3, api_key_id, $1, $2, 'model', '', NULL, false, $11, $12, $13, $14, $15) AS reserved
    WHERE NOT is_to_stop
), claimed AS (
    INSERT INTO steps AS held
        (turn_id, step, user_id, attempt, run_id, activity_id, activity_attempt, model, status)
    SELECT $1, $2, $3, 1, $4, $5, $6, $7, 'running' FROM room WHERE granted IS NOT NULL
    ON CONFLICT (turn_id, step) DO UPDATE SET
        attempt = held.attempt + 1, run_id = excluded.run_id,
        activity_id = excluded.activity_id, activity_attempt = excluded.activity_attempt,
        model = excluded.model, status = 'running', text = '', blocks = '[]',
        thinking = '', problem = NULL, stop_reason = NULL, updated_at = now()
    WHERE held.status <> 'completed'
      AND ((held.run_id, held.activity_id) <> (excluded.run_id, excluded.activity_id)
           OR held.activity_attempt < excluded.activity_attempt)
    RETURNING attempt
), charge AS (
    INSERT INTO {OPENED}
    SELECT $8, $3, $1, $2, attempt, 'model', '', $7, 'open', true, $9, $10, usd, tokens,
           api_key_id, is_limited
    FROM claimed, room, turn
)
SELECT turn.is_to_stop, claimed.attempt, room.*
FROM turn LEFT JOIN room ON true LEFT JOIN claimed ON true
"""  # noqa: S608 -- parts of our own

# Open attempts of the step belong to processes that died: their cost is what was last recorded.
LOSE_OLDER: Final = """
WITH lost AS (
    UPDATE ledger SET status = 'lost', settled_at = now()
    WHERE turn_id = $1 AND step = $2 AND attempt < $3 AND status = 'open' AND kind = 'model'
    RETURNING attempt
)
SELECT (SELECT count(*) FROM lost) + count(*) FROM ledger
WHERE turn_id = $1 AND step = $2 AND kind = 'model' AND status = 'lost'
"""

_IMAGES: Final = attached(
    "attachments.turn_id = tool_calls.turn_id AND attachments.step = tool_calls.step "
    "AND attachments.tool_call_id = tool_calls.tool_call_id"
)

CALLS_BEFORE: Final = f"""
SELECT step, tool_call_id, name, status, output, blocks, edited_input, approval,
       {_IMAGES} AS images
FROM tool_calls WHERE turn_id = $1 AND step < $2 ORDER BY step, position
"""  # noqa: S608 -- a constant of ours

STORED: Final = """
SELECT steps.status, steps.attempt, steps.stop_reason, ledger.input_tokens, ledger.output_tokens,
       ledger.cache_read_tokens, ledger.cache_write_tokens, ledger.cost_usd, steps.problem,
       EXISTS (SELECT FROM steps AS earlier WHERE earlier.turn_id = $1 AND earlier.step < $2
               AND earlier.problem IS NOT NULL) AS is_correction
FROM steps JOIN ledger USING (turn_id, step, attempt)
WHERE turn_id = $1 AND step = $2 AND ledger.kind = 'model'
"""

# Money and text are stored together, and only by the attempt that holds the step.
CHECKPOINT: Final = f"""
WITH held AS (
    UPDATE steps SET text = $9, thinking = $10, updated_at = now()
    WHERE turn_id = $1 AND step = $2 AND attempt = $3 AND status = 'running'
    RETURNING turn_id, step, attempt
)
UPDATE ledger SET {spent(4)} FROM held
WHERE ledger.turn_id = held.turn_id AND ledger.step = held.step
  AND ledger.attempt = held.attempt AND ledger.kind = 'model'
"""  # noqa: S608 -- parts of our own

COMPLETE: Final = f"""
WITH held AS (
    UPDATE steps SET status = 'completed', text = $9, blocks = $10, stop_reason = $11,
                     prompt_tokens = $13, thinking = $14, problem = $15, updated_at = now()
    WHERE turn_id = $1 AND step = $2 AND attempt = $3 AND status = 'running'
    RETURNING turn_id, step, attempt
)
UPDATE ledger SET status = 'settled', estimated = $12, settled_at = now(), {spent(4)} FROM held
WHERE ledger.turn_id = held.turn_id AND ledger.step = held.step
  AND ledger.attempt = held.attempt AND ledger.kind = 'model'
RETURNING held.attempt
"""  # noqa: S608 -- parts of our own

ABANDON: Final = """
UPDATE steps SET status = $5, text = $4, thinking = $6, updated_at = now()
WHERE turn_id = $1 AND step = $2 AND attempt = $3 AND status = 'running'
"""

# A later step answers in their place. The higher attempt clears their text at clients.
REPLACE_ANSWERS: Final = """
UPDATE steps SET attempt = attempt + (text <> '' OR thinking <> '')::int, text = '', thinking = '',
                 updated_at = now()
WHERE turn_id = $1 AND step < $2 AND problem IS NOT NULL
RETURNING step, attempt, model
"""

FAILURES: Final = """
SELECT count(*) FROM ledger
WHERE turn_id = $1 AND step = $2 AND kind = 'model' AND model = $3 AND status = 'failed'
"""

# Tools approved for the whole chat need no new approval. A call that can't be made has ended.
REQUEST_TOOL: Final = """
INSERT INTO tool_calls
    (turn_id, step, tool_call_id, user_id, position, name, input, approval, status, output,
     finished_at)
SELECT $1, $2, $3, $4, $5, $6, $7,
    CASE WHEN $8 = 'ask' AND $9::text IS NULL AND NOT EXISTS (
        SELECT FROM chat_tool_approvals
        WHERE chat_id = (SELECT chat_id FROM turns WHERE id = $1) AND tool = $6)
    THEN 'ask' ELSE 'auto' END,
    CASE WHEN $9::text IS NULL THEN 'requested' ELSE 'failed' END, $9::text,
    CASE WHEN $9::text IS NOT NULL THEN now() END
"""

TO_APPROVE: Final = """
SELECT tool_call_id FROM tool_calls WHERE turn_id = $1 AND step = $2 AND approval = 'ask'
"""
