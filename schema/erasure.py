"""Owns what Temporal is told of erasing: how much was done, nothing of what it was."""

from schema.wire import Payload


class ErasureOutcome(Payload):
    """What one sweep erased; `is_done` is false where Redis was away."""

    erased: int
    is_done: bool
