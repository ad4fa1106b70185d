"""Owns the names of a turn's keys in Redis. The braces keep them in one slot of a cluster."""

from schema.ids import TurnId


def stream_key(turn_id: TurnId) -> str:
    """Return the key of the Redis stream that holds the turn's events."""
    return f"everturn:{{{turn_id}}}:events"


def fence_key(turn_id: TurnId) -> str:
    """Return the key of the hash from step to its newest attempt; field `done` closes it."""
    return f"everturn:{{{turn_id}}}:fence"


def channel_name(turn_id: TurnId) -> str:
    """Return the channel on which each appended event is announced."""
    return f"everturn:{{{turn_id}}}"
