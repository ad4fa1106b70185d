"""The gateway to Postgres: transactions that carry their actor, and the migrations."""

from services.database.plain import Connection
from services.database.store import Database, DatabaseUnavailableError

__all__ = ["Connection", "Database", "DatabaseUnavailableError"]
