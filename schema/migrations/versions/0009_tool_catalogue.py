"""A count of changes of tools, by which every process notices one at its next turn."""

from alembic import op

from schema.migrations.policies import administer

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# A change of a server's health is not a change of its tools.
_CHANGES = {
    "tool_settings": "INSERT OR UPDATE OR DELETE",
    "mcp_servers": "UPDATE OF enabled OR DELETE",
    "mcp_tools": "INSERT OR UPDATE OR DELETE",
    "workflow_tools": "INSERT OR UPDATE OR DELETE",
}


def upgrade() -> None:
    """Add the counter and its triggers."""
    op.execute(
        "CREATE TABLE tool_catalogue ("
        "id integer PRIMARY KEY DEFAULT 1 CHECK (id = 1), version bigint NOT NULL DEFAULT 0)"
    )
    op.execute("INSERT INTO tool_catalogue DEFAULT VALUES")
    op.execute(
        "CREATE FUNCTION everturn_count_tool_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE tool_catalogue SET version = version + 1; RETURN NULL; END $$"
    )
    for table, changes in _CHANGES.items():
        op.execute(
            f"CREATE TRIGGER {table}_counted AFTER {changes} ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION everturn_count_tool_change()"
        )
    for statement in administer("tool_catalogue", grants="SELECT, UPDATE", readable=True):
        op.execute(statement)


def downgrade() -> None:
    """Remove the counter and its triggers."""
    for table in _CHANGES:
        op.execute(f"DROP TRIGGER {table}_counted ON {table}")
    op.execute("DROP FUNCTION everturn_count_tool_change()")
    op.execute("DROP TABLE tool_catalogue")
