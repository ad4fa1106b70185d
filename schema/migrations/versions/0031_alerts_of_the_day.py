"""One trigger counts a charge and alerts for its own day and period; refusals have severities.

Thresholds are only looked for where a budget applied when the call began: one that was set since
is caught up with by the next call. `everturn_take_notices` is no longer called, but stays for
processes of the version before, which run until they are replaced.
"""

from importlib import import_module
from typing import Any

from alembic import op

from schema.migrations.policies import ACT_AS_CALLER, ACT_AS_SERVICE

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_SETTLED_DAYS = vars(import_module("schema.migrations.versions.0030_settled_days"))
_LIMITS = _SETTLED_DAYS["_LIMITS"]

# Without a limit no lock is taken and nothing is added up. Behind the lock, which lasts until the
# caller's commit, every query sees what those before have reserved: the function is volatile, so
# each of its queries has a snapshot of its own. The locks are always taken in this order.
#
# Open rows of the same call don't stand in its way. Earlier attempts count with what they have cost
# so far, or not at all where a repeated call is paid once (`replaces`), and nor does an earlier
# estimate of this very attempt.
_RESERVE = f"""
CREATE FUNCTION everturn_reserve(
    of_user uuid, of_key uuid, of_turn uuid, of_step integer, of_kind text, of_call text,
    of_attempt integer, replaces boolean,
    fixed_usd numeric, fixed_tokens bigint, usd_per_token numeric,
    wanted integer, useful integer,
    OUT granted integer, OUT usd numeric, OUT tokens bigint,
    OUT scope text, OUT unit text, OUT period text, OUT resets_at timestamptz,
    OUT is_limited boolean
) LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
    tightest record;
    is_installation_limited boolean;
BEGIN
    granted := wanted;
    SELECT limits.is_installation_limited, limits.is_limited FROM ({_LIMITS}) AS limits
    INTO is_installation_limited, is_limited;
    IF is_limited THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('budgets of ' || of_user, 0));
        IF is_installation_limited THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('budget of the installation', 0));
        END IF;
        SELECT room.*, CASE
            WHEN room.left_over < 0 THEN -1
            WHEN room.per_token = 0 THEN wanted
            ELSE least(wanted, floor(room.left_over / room.per_token)) END AS fits
        INTO tightest
        FROM everturn_budgets(of_user, of_key) AS b
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(CASE
                WHEN is_replaced AND b.unit = 'usd' THEN charged_usd
                WHEN is_replaced THEN charged_tokens
                WHEN b.unit = 'usd' THEN charged_usd - cost_usd
                ELSE charged_tokens - input_tokens - output_tokens - cache_read_tokens
                     - cache_write_tokens END), 0) AS held
            FROM ledger
            CROSS JOIN LATERAL (
                SELECT replaces OR attempt IS NOT DISTINCT FROM of_attempt AS is_replaced
            ) AS this
            WHERE turn_id = of_turn AND step = of_step AND kind = of_kind
              AND tool_call_id = of_call AND (status = 'open' OR replaces)
              AND created_at >= b.starts_at
        ) AS own
        CROSS JOIN LATERAL (
            SELECT b.scope, b.unit, b.period, b.resets_at,
                   b.allowed - b.charged + own.held
                   - CASE b.unit WHEN 'usd' THEN fixed_usd ELSE fixed_tokens END AS left_over,
                   CASE b.unit WHEN 'usd' THEN usd_per_token ELSE 1 END AS per_token
        ) AS room
        ORDER BY fits, room.resets_at DESC
        LIMIT 1;
        IF tightest.fits < least(wanted, useful) THEN
            granted := NULL;
            scope := tightest.scope;
            unit := tightest.unit;
            period := tightest.period;
            resets_at := tightest.resets_at;
        ELSE
            granted := coalesce(tightest.fits, wanted);
        END IF;
    END IF;
    usd := fixed_usd + coalesce(granted, 0) * usd_per_token;
    tokens := fixed_tokens + coalesce(granted, 0);
    {ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- conditions from above

# Raises what was not raised before, and returns it: of every budget that applies each threshold
# that it has reached, in the day and period of `of_time`; or, where a call was refused, the last
# one of the budget that refused it. The limit is part of the key, so a budget that is changed is
# another one. The order of keys is that of locks. A user who is being deleted is skipped: to wait
# for that would be a deadlock.
#
# A refusal has keys of its own, so that the alert of a budget that is used up indeed still comes
# after it; once that has come, refusals are no news. A refusal is critical where what is used up
# leaves less than `refused_least`, so that nothing else will fit either, and otherwise a warning,
# which a critical one may follow.
_REACH = f"""
CREATE FUNCTION everturn_reach_budgets(
    of_user uuid, of_key uuid, of_turn uuid, refused_scope text DEFAULT NULL,
    refused_unit text DEFAULT NULL, refused_period text DEFAULT NULL,
    refused_least numeric DEFAULT 0, of_time timestamptz DEFAULT now()
) RETURNS SETOF alerts LANGUAGE plpgsql
SET timezone = 'UTC' AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    RETURN QUERY
    WITH reached AS (
        SELECT budget.*, threshold, severity, key,
               CASE scope WHEN 'api_key' THEN of_user WHEN 'user' THEN of_user END AS user_id,
               CASE scope WHEN 'installation' THEN NULL ELSE scope END AS resource_type,
               CASE scope WHEN 'installation' THEN NULL ELSE subject_id::text END AS resource_id
        FROM (SELECT id FROM users WHERE id = of_user FOR KEY SHARE SKIP LOCKED)
             AS still_there
        CROSS JOIN everturn_budgets(of_user, of_key, of_time) AS budget
        CROSS JOIN (VALUES (50, 'info'), (80, 'warning'), (100, 'critical'))
            AS step (threshold, spent_severity)
        CROSS JOIN LATERAL (
            SELECT concat_ws(':', 'budget', scope, subject_id, unit, period,
                             extract(epoch FROM starts_at)::bigint, trim_scale(allowed),
                             lpad(threshold::text, 3, '0')) AS spent_key,
                   refused_scope IS NOT NULL AND settled < allowed
                   AND allowed - settled >= refused_least AS is_passing
        ) AS named
        CROSS JOIN LATERAL (
            SELECT CASE WHEN refused_scope IS NULL THEN ARRAY[spent_key]
                        WHEN is_passing THEN ARRAY[concat_ws(':', spent_key, 'refused', 'warning'),
                                                   concat_ws(':', spent_key, 'refused'), spent_key]
                        ELSE ARRAY[concat_ws(':', spent_key, 'refused'), spent_key] END AS keys
        ) AS known
        CROSS JOIN LATERAL (
            SELECT keys[1] AS key,
                   CASE WHEN is_passing THEN 'warning' ELSE spent_severity END AS severity
        ) AS raising
        WHERE CASE WHEN refused_scope IS NULL
              THEN settled * 100 >= allowed * threshold AND (allowed > 0 OR threshold = 100)
              ELSE threshold = 100 AND scope = refused_scope AND unit = refused_unit
                   AND period = refused_period END
          AND NOT EXISTS (SELECT FROM alerts AS earlier WHERE earlier.dedup_key = ANY (keys))
    ), raised AS (
        INSERT INTO alerts (id, kind, severity, user_id, resource_type, resource_id, dedup_key,
                            unreported_in, details)
        SELECT everturn_new_id(), 'budget.reached', severity, user_id, resource_type,
               resource_id, key, of_turn, jsonb_build_object(
                   'scope', scope, 'unit', unit, 'window', period, 'threshold', threshold,
                   'reason', CASE WHEN refused_scope IS NULL THEN 'spent' ELSE 'refused' END,
                   'usedPercent', CASE allowed WHEN 0 THEN 100
                                               ELSE floor(settled * 100 / allowed) END,
                   'limit', CASE unit WHEN 'usd' THEN to_jsonb(trim_scale(allowed)::text)
                                      ELSE to_jsonb(allowed) END,
                   'used', CASE unit WHEN 'usd' THEN to_jsonb(trim_scale(settled)::text)
                                     ELSE to_jsonb(settled) END,
                   'resetsAt', to_char(resets_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
        FROM reached ORDER BY key
        ON CONFLICT (dedup_key) DO NOTHING
        RETURNING *
    ), recorded AS (
        INSERT INTO audit_log (id, actor_type, actor_id, action, resource_type, resource_id,
                               subject_id, details)
        SELECT everturn_new_id(), 'service', '00000000-0000-0000-0000-000000000000',
               'budget.reached', coalesce(raised.resource_type, 'installation'),
               raised.resource_id, raised.user_id, raised.details
        FROM raised
    )
    SELECT * FROM raised ORDER BY dedup_key;
    {ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- constants

# Days are added up and locked before thresholds are looked for, so that of two transactions which
# cross one together the second sees it.
_REACHING = """
    IF NEW.is_limited AND everturn_is_limited(of_user, of_key) THEN
        PERFORM everturn_reach_budgets(of_user, of_key, NEW.turn_id, of_time => NEW.created_at);
    END IF;
    RETURN NULL;
END"""
_COUNT_AND_REACH = _SETTLED_DAYS["_COUNT_CHARGE"].replace("\n    RETURN NULL;\nEND", _REACHING)

# What has been raised in a turn, and not been shown there yet. With `at_once` the charges of this
# transaction count, too, and days of usage stay locked from there on.
_UNREPORTED = f"""
CREATE FUNCTION everturn_unreported(of_turn uuid, at_once boolean)
RETURNS TABLE (key text, details jsonb) LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    IF at_once THEN
        SET CONSTRAINTS ALL IMMEDIATE;
    END IF;
    RETURN QUERY SELECT alerts.dedup_key, alerts.details FROM alerts
        WHERE unreported_in = of_turn ORDER BY alerts.dedup_key;
    {ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- constants

# A row that the version before opens may be limited.
_UP = (
    "DROP TRIGGER ledger_reaches_by_update ON ledger",
    "DROP TRIGGER ledger_reaches_by_insert ON ledger",
    "DROP FUNCTION everturn_reach_by_charge()",
    "DROP FUNCTION everturn_reach_budgets(uuid, uuid, uuid, text, text, text)",
    "DROP FUNCTION everturn_reserve",
    "ALTER TABLE ledger ADD COLUMN is_limited boolean NOT NULL DEFAULT true",
    *(_RESERVE, _REACH, _COUNT_AND_REACH, _UNREPORTED),
)
_DOWN = (
    "DROP FUNCTION everturn_unreported(uuid, boolean)",
    "DROP FUNCTION everturn_reach_budgets",
    "DROP FUNCTION everturn_reserve",
    "ALTER TABLE ledger DROP COLUMN is_limited",
    _SETTLED_DAYS["_COUNT_CHARGE"],
)


def upgrade() -> None:
    """Replace the functions and triggers."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Bring their earlier forms back."""
    for statement in (
        *_DOWN,
        _earlier("0026_reservations", "_RESERVE"),
        _earlier("0029_refusals_of_budgets", "_REACH"),
        _earlier("0027_reached_budgets", "_REACH_BY_CHARGE"),
        *_earlier("0027_reached_budgets", "_TRIGGERS"),
    ):
        op.execute(statement)


def _earlier(module: str, name: str) -> Any:  # noqa: ANN401 -- what that migration calls so
    return vars(import_module(f"schema.migrations.versions.{module}"))[name]
