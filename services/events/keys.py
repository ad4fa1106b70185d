"""Owns the names of keys and channels in Redis. Braces keep a turn's in one slot of a cluster."""

from typing import Final

from schema.ids import TurnId

API_CHANNEL: Final = "everturn:api"
"""On which the processes of the API tell each other what to forget; all listen to it, always."""


def stream_key(turn_id: TurnId) -> str:
    """Return the key of the Redis stream that holds the turn's events."""
    return f"everturn:{{{turn_id}}}:events"


def fence_key(turn_id: TurnId) -> str:
    """Return the key of the hash from step to its newest attempt; field `done` closes it."""
    return f"everturn:{{{turn_id}}}:fence"


def channel_name(turn_id: TurnId) -> str:
    """Return the channel on which each appended event is announced."""
    return f"everturn:{{{turn_id}}}"
