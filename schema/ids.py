"""Owns the identifiers: their types, and how a new one is made."""

from typing import NewType
from uuid import UUID

from uuid_utils.compat import uuid7

UserId = NewType("UserId", UUID)
ChatId = NewType("ChatId", UUID)
MessageId = NewType("MessageId", UUID)
TurnId = NewType("TurnId", UUID)


def new_id() -> UUID:
    """Return a UUIDv7: unique, and ordered by the time of its making.

    Source: RFC 9562, section 5.7.
    """
    return uuid7()


def turn_workflow_id(turn_id: TurnId) -> str:
    """Return the id of the workflow that runs this turn; at most one such workflow runs."""
    return f"turn-{turn_id}"
