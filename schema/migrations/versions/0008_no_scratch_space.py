"""No temporary tables and no large objects: policies apply to neither.

Only the database's owner can take the one from everybody, and only a superuser the other; where
the role that migrates is neither, both stay as they are.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_MAKERS = "lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea)"


def upgrade() -> None:
    """Revoke both from all roles, as far as this role may."""
    _as_far_as_allowed(
        "EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database())"
    )
    _as_far_as_allowed(f"REVOKE EXECUTE ON FUNCTION {_MAKERS} FROM PUBLIC")


def downgrade() -> None:
    """Grant both again."""
    _as_far_as_allowed(
        "EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database())"
    )
    _as_far_as_allowed(f"GRANT EXECUTE ON FUNCTION {_MAKERS} TO PUBLIC")


def _as_far_as_allowed(statement: str) -> None:
    op.execute(f"DO $$ BEGIN {statement}; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$")
