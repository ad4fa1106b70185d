"""The SQL of row-level security, so that every table's policies read the same.

The actor is bound to a transaction by two settings, `everturn.actor_type` and
`everturn.user_id`. Where they are missing or empty, nothing is visible.
"""

APPLICATION_ROLE = "everturn_app"

ACTOR_FUNCTIONS = """
CREATE FUNCTION everturn_actor_type() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT NULLIF(current_setting('everturn.actor_type', true), '') $$;
CREATE FUNCTION everturn_user_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT NULLIF(current_setting('everturn.user_id', true), '')::uuid $$;
"""

DROP_ACTOR_FUNCTIONS = """
DROP FUNCTION everturn_user_id();
DROP FUNCTION everturn_actor_type();
"""

# How a function in PL/pgSQL acts as the service: the first lines begin its DECLARE, the last one
# stands before each of its ends; an error rolls them back. Assignments cost less than PERFORM.
# A clause `SET everturn.actor_type` would do the same, but only a superuser may write it.
ACT_AS_SERVICE = """callers_type text := current_setting('everturn.actor_type', true);
    acting_type text := set_config('everturn.actor_type', 'service', true);"""
ACT_AS_CALLER = (
    "acting_type := set_config('everturn.actor_type', coalesce(callers_type, ''), true);"
)

# A scalar sub-select is computed once for a statement, a bare function call once for each row.
_TYPE = "(SELECT everturn_actor_type())"
_USER = "(SELECT everturn_user_id())"

IS_ADMIN = f"{_TYPE} = 'admin'"
IS_SIGNED_IN = f"{_TYPE} IN ('user', 'admin')"


def statements(script: str) -> list[str]:
    """Split a script without function bodies: asyncpg prepares one statement at a time."""
    return [part.strip() for part in script.split(";\n") if part.strip()]


def owns(column: str = "user_id") -> str:
    """Return the condition that a row is the actor's own."""
    return f"{IS_SIGNED_IN} AND {column} = {_USER}"


def hide(table: str, *, grants: str) -> list[str]:
    """Return the statements that keep `table` from everyone but the service."""
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"GRANT {grants} ON {table} TO {APPLICATION_ROLE}",
        policy(table, "service", "ALL", f"{_TYPE} = 'service'"),
    ]


def secure(
    table: str, *, grants: str, owner_column: str = "user_id", owner_commands: str = "ALL"
) -> list[str]:
    """Return the statements that let users see their own rows of `table`, administrators all.

    `owner_commands` is `ALL` or `SELECT`: what users may do to the rows that are theirs.
    """
    return [
        *hide(table, grants=grants),
        policy(table, "owner", owner_commands, owns(owner_column)),
        policy(table, "admin", "SELECT", IS_ADMIN),
    ]


def administer(table: str, *, grants: str, readable: bool) -> list[str]:
    """Return the statements that let administrators change `table`, and others read it or not."""
    return [
        *hide(table, grants=grants),
        policy(table, "admin", "ALL", IS_ADMIN),
        *([policy(table, "reader", "SELECT", IS_SIGNED_IN)] if readable else []),
    ]


def policy(table: str, name: str, commands: str, condition: str) -> str:
    """Return the statement that makes one policy.

    One without WITH CHECK checks new rows by its USING; an INSERT has no old row to use.
    """
    checked = "WITH CHECK" if commands == "INSERT" else "USING"
    return (
        f"CREATE POLICY {table}_{name} ON {table} FOR {commands} TO {APPLICATION_ROLE} "
        f"{checked} ({condition})"
    )
