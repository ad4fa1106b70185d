"""The gateway to Postgres: transactions of actors, compiled queries, migrations.

There are two ways to query, see docs/decisions/0030-two-ways-to-query.md:

    Database.transaction    a SQLModel session: writes of resources, and rare queries
    Database.statements     the driver: the hot path, in plain SQL, and reads (queries.py)

What every request reads by a key is gathered: `GatheredReads`.
"""

from services.database.connections import Connection
from services.database.gathering import GatheredReads
from services.database.store import ActorGoneError, Database, DatabaseUnavailableError

__all__ = [
    "ActorGoneError",
    "Connection",
    "Database",
    "DatabaseUnavailableError",
    "GatheredReads",
]
