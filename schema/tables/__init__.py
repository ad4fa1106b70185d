"""The rows of the database, one module per noun. Rows never leave `services`."""

from schema.tables.chats import ChatRow, MessageRow
from schema.tables.ledger import LedgerRow
from schema.tables.turns import StepRow, ToolCallRow, TurnRow
from schema.tables.users import CredentialRow, RefreshTokenRow, UserRow

__all__ = [
    "ChatRow",
    "CredentialRow",
    "LedgerRow",
    "MessageRow",
    "RefreshTokenRow",
    "StepRow",
    "ToolCallRow",
    "TurnRow",
    "UserRow",
]
