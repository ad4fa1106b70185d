"""Days add up what is settled alone: what running calls reserve is read from the ledger.

So a row that is opened costs nothing more, and no plan is made for each call. The functions that
this replaces stay in their own migrations.
"""

from importlib import import_module
from typing import Any

from alembic import op

from schema.migrations.policies import ACT_AS_CALLER, ACT_AS_SERVICE, statements

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_INSTALLATION = "'00000000-0000-0000-0000-000000000000'"
# Each table that a query names costs it a dozen microseconds, for the table's policies. A user's
# own budget may lift all limits of a plan: then nothing is found to be limited later.
_LIMITS = f"""
    SELECT coalesce(bool_or(b.scope = 'installation'), false) AS is_installation_limited,
           count(*) > 0 OR coalesce((
               SELECT num_nonnulls(entitlements->>'budgetUsd', entitlements->>'dailyBudgetUsd',
                                   entitlements->>'budgetTokens',
                                   entitlements->>'dailyBudgetTokens') > 0
               FROM plans
               LEFT JOIN subscriptions AS s ON s.user_id = of_user AND s.plan_id = plans.id
               WHERE s.plan_id IS NOT NULL OR is_default
               ORDER BY s.plan_id IS NULL LIMIT 1
           ), false) AS is_limited
    FROM budgets AS b
    WHERE b.scope IN ('user', 'api_key', 'installation')
      AND b.subject_id IN (of_user, of_key, {_INSTALLATION})
      AND num_nonnulls(budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens) > 0
"""  # noqa: S608 -- an id

_IS_LIMITED = f"""
CREATE OR REPLACE FUNCTION everturn_is_limited(of_user uuid, of_key uuid) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    {ACT_AS_SERVICE}
    answer CONSTANT boolean := (SELECT limits.is_limited FROM ({_LIMITS}) AS limits);
BEGIN
    {ACT_AS_CALLER}
    RETURN answer;
END $$
"""  # noqa: S608 -- constants

# It acts as the service, because users may not read the installation's budget. The month of a
# subscription begins on the day and at the time of its start, or on the last day of a shorter
# month, as in services/subscriptions/periods.py. What the ledger has of its first day before that
# time, and of its last day behind its end, is no part of it; an end in the future has nothing
# behind it. What is charged is what is settled, and what running calls reserve. In PL/pgSQL,
# because every version of Postgres keeps the plans of its functions.
_BUDGETS = f"""
CREATE FUNCTION everturn_budgets(of_user uuid, of_key uuid, of_time timestamptz DEFAULT now())
RETURNS TABLE (scope text, subject_id uuid, unit text, period text, allowed numeric,
               charged numeric, settled numeric, starts_at timestamptz, resets_at timestamptz)
LANGUAGE plpgsql STABLE SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    {ACT_AS_SERVICE}
BEGIN
IF NOT (SELECT limits.is_limited FROM ({_LIMITS}) AS limits) THEN
    {ACT_AS_CALLER}
    RETURN;
END IF;
RETURN QUERY
WITH present AS MATERIALIZED (
    SELECT of_time::timestamp AS moment, date_trunc('day', of_time::timestamp) AS today
), terms AS MATERIALIZED (
    SELECT plans.entitlements,
           coalesce(subscriptions.started_at, timestamptz '2000-01-01Z')::timestamp AS anchor
    FROM plans LEFT JOIN subscriptions ON subscriptions.user_id = of_user
    WHERE plans.id = coalesce(subscriptions.plan_id, (SELECT id FROM plans WHERE is_default))
), periods AS MATERIALIZED (
    SELECT anchor, months - (anchor + make_interval(months => months) > moment)::integer AS months
    FROM present, terms, LATERAL (
        SELECT ((extract(year FROM moment) - extract(year FROM anchor)) * 12
                + extract(month FROM moment) - extract(month FROM anchor))::integer AS months
    ) AS counted
), limits AS MATERIALIZED (
    SELECT 'user' AS scope, of_user AS subject_id,
           CASE WHEN own.scope IS NULL THEN (entitlements->>'budgetUsd')::numeric
                ELSE own.budget_usd END AS month_usd,
           CASE WHEN own.scope IS NULL THEN (entitlements->>'dailyBudgetUsd')::numeric
                ELSE own.daily_budget_usd END AS day_usd,
           CASE WHEN own.scope IS NULL THEN (entitlements->>'budgetTokens')::numeric
                ELSE own.budget_tokens END AS month_tokens,
           CASE WHEN own.scope IS NULL THEN (entitlements->>'dailyBudgetTokens')::numeric
                ELSE own.daily_budget_tokens END AS day_tokens
    FROM terms LEFT JOIN budgets AS own ON own.scope = 'user' AND own.subject_id = of_user
    UNION ALL
    SELECT scope, subject_id, budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens
    FROM budgets WHERE scope = 'api_key' AND subject_id = of_key
    UNION ALL
    SELECT scope, subject_id, budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens
    FROM budgets WHERE scope = 'installation'
), windows AS MATERIALIZED (
    SELECT limits.*, month_start, month_end, today
    FROM limits, present, periods, LATERAL (
        SELECT CASE limits.scope WHEN 'installation' THEN date_trunc('month', moment)
               ELSE anchor + make_interval(months => months) END AS month_start,
               CASE limits.scope WHEN 'installation'
               THEN date_trunc('month', moment) + interval '1 month'
               ELSE anchor + make_interval(months => months + 1) END AS month_end
    ) AS month
    WHERE num_nonnulls(month_usd, day_usd, month_tokens, day_tokens) > 0
)
SELECT windows.scope, windows.subject_id, one.unit, one.period, one.allowed,
       one.settled + one.held, one.settled, one.starts_at::timestamptz, one.resets_at::timestamptz
FROM windows
CROSS JOIN LATERAL (
    SELECT coalesce(sum(settled_usd) FILTER (WHERE day = today), 0) AS day_usd,
           coalesce(sum(settled_tokens) FILTER (WHERE day = today), 0) AS day_tokens,
           coalesce(sum(settled_usd) FILTER (WHERE day >= month_start::date), 0) AS usd,
           coalesce(sum(settled_tokens) FILTER (WHERE day >= month_start::date), 0) AS tokens
    FROM usage_days AS days
    WHERE days.scope = windows.scope AND days.subject_id = windows.subject_id
      AND day >= least(today, month_start)::date AND day < month_end
) AS spent
CROSS JOIN LATERAL (
    SELECT coalesce(sum(charged_usd), 0) AS usd, coalesce(sum(charged_tokens), 0) AS tokens
    FROM (
        SELECT date_trunc('day', month_start) AS since, month_start AS until
        UNION ALL
        SELECT month_end, date_trunc('day', month_end - interval '1 microsecond') + interval '1 day'
        WHERE month_end <= now()
    ) AS parts
    JOIN ledger ON created_at >= since::timestamptz AND created_at < until::timestamptz
    WHERE windows.scope <> 'installation' AND ledger.user_id = of_user AND status <> 'open'
      AND (windows.scope = 'user' OR ledger.api_key_id = of_key)
) AS outside
CROSS JOIN LATERAL (
    SELECT coalesce(sum(charged_usd) FILTER (WHERE is_today), 0) AS day_usd,
           coalesce(sum(charged_tokens) FILTER (WHERE is_today), 0) AS day_tokens,
           coalesce(sum(charged_usd) FILTER (WHERE is_in_month), 0) AS usd,
           coalesce(sum(charged_tokens) FILTER (WHERE is_in_month), 0) AS tokens
    FROM (
        SELECT charged_usd, charged_tokens, created_at FROM ledger
        WHERE windows.scope <> 'installation' AND status = 'open' AND ledger.user_id = of_user
          AND (windows.scope = 'user' OR ledger.api_key_id = of_key)
        UNION ALL
        SELECT charged_usd, charged_tokens, created_at FROM ledger
        WHERE windows.scope = 'installation' AND status = 'open'
    ) AS running
    CROSS JOIN LATERAL (
        SELECT created_at >= today::timestamptz
               AND created_at < (today + interval '1 day')::timestamptz AS is_today,
               created_at >= month_start::timestamptz
               AND created_at < month_end::timestamptz AS is_in_month
    ) AS begun
) AS held
CROSS JOIN LATERAL (
    VALUES
    ('usd', 'month', month_usd, spent.usd - outside.usd, held.usd, month_start, month_end),
    ('tokens', 'month', month_tokens, spent.tokens - outside.tokens, held.tokens, month_start,
     month_end),
    ('usd', 'day', windows.day_usd, spent.day_usd, held.day_usd, today, today + interval '1 day'),
    ('tokens', 'day', windows.day_tokens, spent.day_tokens, held.day_tokens, today,
     today + interval '1 day')
) AS one (unit, period, allowed, settled, held, starts_at, resets_at)
WHERE one.allowed IS NOT NULL;
{ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- conditions from above

# Days are locked in this order: of two transactions that wait for each other's day, one would be
# rolled back. The row of a day is there but for its first charge; a user may be deleted in the
# transaction that marks their last calls as lost. The installation is counted while it has a
# budget.
_INSERT_DAY = """INSERT INTO usage_days AS days
            (scope, subject_id, user_id, day, settled_usd, settled_tokens)
        SELECT {values}, of_day, usd, tokens WHERE {condition}
        ON CONFLICT (scope, subject_id, day) DO UPDATE SET
            settled_usd = days.settled_usd + excluded.settled_usd,
            settled_tokens = days.settled_tokens + excluded.settled_tokens;"""
_INSTALLATION_IS_COUNTED = (
    f"SELECT FROM budgets WHERE scope = 'installation' AND subject_id = {_INSTALLATION}"
)
_USER_IS_THERE = "EXISTS (SELECT FROM users WHERE id = of_user)"
_INSERT_DAY_OF_USER = _INSERT_DAY.format(
    values="'user', of_user, of_user", condition=_USER_IS_THERE
)
_INSERT_DAY_OF_KEY = _INSERT_DAY.format(
    values="'api_key', of_key, of_user", condition=_USER_IS_THERE
)
_INSERT_DAY_OF_ALL = _INSERT_DAY.format(
    values=f"'installation', {_INSTALLATION}::uuid, NULL::uuid", condition="true"
)
_COUNT_CHARGE = f"""
CREATE OR REPLACE FUNCTION everturn_count_charge() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
    of_user CONSTANT uuid := NEW.user_id;
    of_key CONSTANT uuid := NEW.api_key_id;
    of_day CONSTANT date := (NEW.created_at AT TIME ZONE 'UTC')::date;
    usd CONSTANT numeric := CASE WHEN NEW.status = 'open' THEN 0 ELSE NEW.charged_usd END
        - CASE WHEN OLD.status <> 'open' THEN OLD.charged_usd ELSE 0 END;
    tokens CONSTANT numeric := CASE WHEN NEW.status = 'open' THEN 0 ELSE NEW.charged_tokens END
        - CASE WHEN OLD.status <> 'open' THEN OLD.charged_tokens ELSE 0 END;
BEGIN
    UPDATE usage_days AS days SET settled_usd = days.settled_usd + usd,
        settled_tokens = days.settled_tokens + tokens
    WHERE days.scope = 'user' AND days.subject_id = of_user AND days.day = of_day;
    IF NOT FOUND THEN
        {_INSERT_DAY_OF_USER}
    END IF;
    IF of_key IS NOT NULL THEN
        {_INSERT_DAY_OF_KEY}
    END IF;
    IF EXISTS ({_INSTALLATION_IS_COUNTED}) THEN
        {_INSERT_DAY_OF_ALL}
    END IF;
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""  # noqa: S608 -- conditions from above

# What a deleted user's running call reserved counts as spent: its cost will never be known.
_KEEP_CHARGE = f"""
CREATE OR REPLACE FUNCTION everturn_keep_charge() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
    of_day CONSTANT date := (OLD.created_at AT TIME ZONE 'UTC')::date;
    usd CONSTANT numeric := OLD.charged_usd;
    tokens CONSTANT numeric := OLD.charged_tokens;
BEGIN
    IF EXISTS ({_INSTALLATION_IS_COUNTED}) THEN
        {_INSERT_DAY_OF_ALL}
    END IF;
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""

# The lock waits for all who write to the ledger and keeps others out until the commit: those before
# are seen here, those after see that there is a budget. The installation's months are the
# calendar's.
_SEED_INSTALLATION = f"""
CREATE OR REPLACE FUNCTION everturn_seed_installation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    LOCK TABLE ledger IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM usage_days WHERE scope = 'installation';
    INSERT INTO usage_days (scope, subject_id, day, settled_usd, settled_tokens)
    SELECT 'installation', {_INSTALLATION}, day, sum(settled_usd), sum(settled_tokens)
    FROM usage_days
    WHERE scope = 'user' AND day >= date_trunc('month', now() AT TIME ZONE 'UTC')::date
    GROUP BY day;
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""  # noqa: S608 -- an id

# Deferred: the days stay unlocked until the commit. A condition is checked at once, so that what
# settles nothing, such as a checkpoint, costs nothing.
_DROP_TRIGGERS = (
    "DROP TRIGGER ledger_charge_changed ON ledger",
    "DROP TRIGGER ledger_charge_added ON ledger",
)
_TRIGGERS = (
    """
    CREATE CONSTRAINT TRIGGER ledger_charge_added AFTER INSERT ON ledger
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (NEW.status <> 'open' AND (NEW.charged_usd <> 0 OR NEW.charged_tokens <> 0))
        EXECUTE FUNCTION everturn_count_charge()
    """,
    """
    CREATE CONSTRAINT TRIGGER ledger_charge_changed AFTER UPDATE ON ledger
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (CASE WHEN NEW.status = 'open' THEN 0 ELSE NEW.charged_usd END
              <> CASE WHEN OLD.status = 'open' THEN 0 ELSE OLD.charged_usd END
              OR CASE WHEN NEW.status = 'open' THEN 0 ELSE NEW.charged_tokens END
              <> CASE WHEN OLD.status = 'open' THEN 0 ELSE OLD.charged_tokens END)
        EXECUTE FUNCTION everturn_count_charge()
    """,
)

# Of the few open rows: a user's, the installation's, and old ones for the sweep.
_OPEN_ROWS = (
    "CREATE INDEX ledger_open_user_idx ON ledger (user_id, created_at) WHERE status = 'open'",
    "DROP INDEX ledger_open_idx",
    "ALTER TABLE usage_days DROP COLUMN charged_usd, DROP COLUMN charged_tokens",
)
_CHARGED_DAYS = (
    "DROP INDEX ledger_open_user_idx",
    "CREATE INDEX ledger_open_idx ON ledger (created_at) WHERE status = 'open'",
    """
    ALTER TABLE usage_days ADD COLUMN charged_usd numeric(30, 10) NOT NULL DEFAULT 0,
        ADD COLUMN charged_tokens numeric(30) NOT NULL DEFAULT 0
    """,
    # Forced policies hide all rows from an owner without an actor.
    "ALTER TABLE usage_days NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE ledger NO FORCE ROW LEVEL SECURITY",
    "UPDATE usage_days SET charged_usd = settled_usd, charged_tokens = settled_tokens",
    """
    INSERT INTO usage_days AS days (scope, subject_id, user_id, day, charged_usd, charged_tokens)
    SELECT running.scope, running.subject_id, CASE running.scope WHEN 'user' THEN user_id
           WHEN 'api_key' THEN user_id END, (created_at AT TIME ZONE 'UTC')::date,
           sum(charged_usd), sum(charged_tokens)
    FROM ledger CROSS JOIN LATERAL (
        VALUES ('user', user_id), ('api_key', api_key_id),
               ('installation', (SELECT subject_id FROM budgets WHERE scope = 'installation'))
    ) AS running (scope, subject_id)
    WHERE status = 'open' AND running.subject_id IS NOT NULL
    GROUP BY 1, 2, 3, 4
    ON CONFLICT (scope, subject_id, day) DO UPDATE SET
        charged_usd = days.charged_usd + excluded.charged_usd,
        charged_tokens = days.charged_tokens + excluded.charged_tokens
    """,
    "ALTER TABLE ledger FORCE ROW LEVEL SECURITY",
    "ALTER TABLE usage_days FORCE ROW LEVEL SECURITY",
)

_EARLIER = (
    ("0024_budgets_that_apply", "_BUDGETS"),
    ("0026_reservations", "_ADD_TO_DAY"),
    ("0021_budgets", "_COUNT_CHARGE"),
    ("0021_budgets", "_KEEP_CHARGE"),
    ("0021_budgets", "_SEED_INSTALLATION"),
    ("0027_reached_budgets", "_IS_LIMITED"),
)


def upgrade() -> None:
    """Replace the functions and triggers, and the sums of what is reserved."""
    for statement in (
        *_DROP_TRIGGERS,
        "DROP FUNCTION everturn_add_to_day",
        "DROP FUNCTION everturn_budgets(uuid, uuid)",
        *_OPEN_ROWS,
        *(_IS_LIMITED, _BUDGETS, _COUNT_CHARGE, _KEEP_CHARGE, _SEED_INSTALLATION),
        *_TRIGGERS,
    ):
        op.execute(statement)


def downgrade() -> None:
    """Bring their earlier forms back, and count what running calls reserve by day."""
    for statement in (
        "DROP TRIGGER budgets_seed_installation ON budgets",
        "DROP TRIGGER ledger_charge_kept ON ledger",
        *_DROP_TRIGGERS,
        "DROP FUNCTION everturn_seed_installation()",
        "DROP FUNCTION everturn_keep_charge()",
        "DROP FUNCTION everturn_count_charge()",
        "DROP FUNCTION everturn_budgets",
        "DROP FUNCTION everturn_is_limited",
        *_CHARGED_DAYS,
        *[_earlier(module, name) for module, name in _EARLIER],
        *statements(_earlier("0021_budgets", "_TRIGGERS")),
    ):
        op.execute(statement)


def _earlier(module: str, name: str) -> Any:  # noqa: ANN401 -- what that migration calls so
    return vars(import_module(f"schema.migrations.versions.{module}"))[name]
