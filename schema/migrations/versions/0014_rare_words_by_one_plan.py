"""The query that orders a question's words by rarity is planned once per connection.

No plan is better for some words than for others: each word is looked up by itself. To plan took
as long as to count a word.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_RARE_FIRST = "everturn_rare_first(text[], uuid[], integer[])"


def upgrade() -> None:
    """Keep the generic plan; servers before Postgres 18 still plan each search again."""
    op.execute(f"ALTER FUNCTION {_RARE_FIRST} SET plan_cache_mode = force_generic_plan")


def downgrade() -> None:
    """Leave the choice of plan to the server."""
    op.execute(f"ALTER FUNCTION {_RARE_FIRST} RESET plan_cache_mode")
