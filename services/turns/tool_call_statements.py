"""The SQL of tool calls; `tool_calls.py` and `approvals.py` show when each statement runs.

$1 is the turn, $2 the step, $3 the tool call's id.
"""

from typing import Final

READ: Final = "SELECT * FROM tool_calls WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3"

# The workflow runs a call that needs approval once it is decided, or once the time for that is
# over: then it has expired. The tool's schema as sent to the model comes along: the model may call
# what it was offered, by the schema that it knows. Turns of early versions have all tools.
BEGIN: Final = """
UPDATE tool_calls SET
    decision = coalesce(decision, CASE WHEN approval = 'ask' THEN 'expired' END),
    decided_at = coalesce(decided_at, CASE WHEN approval = 'ask' THEN now() END),
    status = CASE WHEN approval = 'auto' OR decision = 'approved' THEN 'running' ELSE status END,
    attempts = attempts + 1, started_at = coalesce(started_at, now())
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
  AND status NOT IN ('completed', 'failed', 'denied')
RETURNING *, extract(epoch FROM now() - started_at)::float8 AS elapsed_s,
    EXISTS (SELECT FROM turn_contexts WHERE turn_contexts.turn_id = $1) AS has_offers,
    (SELECT offered -> 'inputSchema' FROM turn_contexts,
            jsonb_array_elements(layers -> 'offered') AS offered
     WHERE turn_contexts.turn_id = $1 AND offered ->> 'name' = tool_calls.name
     LIMIT 1) AS offered_schema
"""

ASK: Final = """
UPDATE tool_calls SET status = 'awaiting_approval',
    expires_at = coalesce(expires_at, now() + make_interval(secs => $4))
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
  AND status NOT IN ('completed', 'failed', 'denied') AND decision IS NULL
RETURNING *, extract(epoch FROM expires_at - now())::float8 AS within_s
"""

AWAIT: Final = "UPDATE turns SET status = 'awaiting_approval' WHERE id = $1 AND status = 'running'"

# The turn continues when no call awaits approval.
RESUME: Final = """
UPDATE turns SET status = 'running'
WHERE id = $1 AND status = 'awaiting_approval' AND NOT EXISTS (
    SELECT FROM tool_calls
    WHERE turn_id = $1 AND tool_calls.status = 'awaiting_approval' AND decision IS NULL)
"""

# Set once: an execution that finds the mark of another does not call a tool that runs at most
# once.
SEND: Final = """
UPDATE tool_calls SET sent_at = now()
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
  AND status NOT IN ('completed', 'failed', 'denied') AND sent_at IS NULL
RETURNING true
"""

NOT_SENT: Final = """
UPDATE tool_calls SET sent_at = NULL
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3 AND attempts = $4
  AND status NOT IN ('completed', 'failed', 'denied')
"""

AWAIT_CALLBACK: Final = """
UPDATE tool_calls SET callback_id = $4,
    callback_until = coalesce(callback_until, now() + make_interval(secs => $5))
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
  AND status NOT IN ('completed', 'failed', 'denied')
RETURNING *, extract(epoch FROM callback_until - now())::float8 AS within_s
"""

STORE: Final = """
UPDATE tool_calls SET status = $4, output = $5, blocks = $6, cost_usd = $7, finished_at = now()
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
  AND status NOT IN ('completed', 'failed', 'denied')
RETURNING *
"""
