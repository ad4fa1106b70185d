"""A function that reserves what a paid call may cost, or says which budget it would exceed."""

from alembic import op

from schema.migrations.policies import ACT_AS_CALLER, ACT_AS_SERVICE

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

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
    OUT scope text, OUT unit text, OUT period text, OUT resets_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
    tightest record;
    is_installation_limited boolean := EXISTS (
        SELECT FROM budgets AS b WHERE b.scope = 'installation'
        AND num_nonnulls(budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens) > 0);
BEGIN
    granted := wanted;
    IF is_installation_limited OR EXISTS (
        SELECT FROM budgets AS b WHERE b.scope = 'api_key' AND b.subject_id = of_key
        AND num_nonnulls(budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens) > 0
    ) OR coalesce(
        (SELECT num_nonnulls(budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens) > 0
         FROM budgets AS b WHERE b.scope = 'user' AND b.subject_id = of_user),
        (SELECT num_nonnulls(entitlements->>'budgetUsd', entitlements->>'dailyBudgetUsd',
                             entitlements->>'budgetTokens', entitlements->>'dailyBudgetTokens') > 0
         FROM plans WHERE id = coalesce(
             (SELECT plan_id FROM subscriptions WHERE user_id = of_user),
             (SELECT id FROM plans WHERE is_default)))
    ) THEN
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
"""  # noqa: S608 -- constants

# A user may be deleted in the transaction that marks their last calls as lost.
_ADD_TO_DAY = f"""
CREATE OR REPLACE FUNCTION everturn_add_to_day(
    of_scope text, subject uuid, owner uuid, at timestamptz,
    usd numeric, tokens numeric, final_usd numeric, final_tokens numeric
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    IF owner IS NOT NULL AND NOT EXISTS (SELECT FROM users WHERE id = owner) THEN
        {ACT_AS_CALLER}
        RETURN;
    END IF;
    INSERT INTO usage_days AS days (scope, subject_id, user_id, day, charged_usd, charged_tokens,
                                    settled_usd, settled_tokens)
    VALUES (of_scope, subject, owner, (at AT TIME ZONE 'UTC')::date, usd, tokens, final_usd,
            final_tokens)
    ON CONFLICT (scope, subject_id, day) DO UPDATE SET
        charged_usd = days.charged_usd + excluded.charged_usd,
        charged_tokens = days.charged_tokens + excluded.charged_tokens,
        settled_usd = days.settled_usd + excluded.settled_usd,
        settled_tokens = days.settled_tokens + excluded.settled_tokens;
    {ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- constants


def upgrade() -> None:
    """Create the function, and let sums of days be without those of deleted users."""
    op.execute(_RESERVE)
    op.execute(_ADD_TO_DAY)


def downgrade() -> None:
    """Drop it; the other function does all that its earlier form did."""
    op.execute("DROP FUNCTION everturn_reserve")
