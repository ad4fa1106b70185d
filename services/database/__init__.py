"""The gateway to Postgres: transactions that carry their actor, and the migrations."""

from services.database.plain import Connection
from services.database.store import ActorGoneError, Database, DatabaseUnavailableError

__all__ = ["ActorGoneError", "Connection", "Database", "DatabaseUnavailableError"]
