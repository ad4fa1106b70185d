"""The gateway to Postgres: transactions that carry their actor, and the migrations."""

from services.database.store import Database, DatabaseUnavailableError

__all__ = ["Database", "DatabaseUnavailableError"]
