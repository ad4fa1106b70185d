"""Owns how long Temporal is waited for, and telling its being away from a defect of ours."""

import asyncio
from typing import Final

from temporalio.service import RPCError

_PATIENCE_S: Final = 3.0
"""For all attempts together: the client of Temporal makes them for ten seconds by itself."""


def patience() -> asyncio.Timeout:
    """Return what gives a call of Temporal up, with TimeoutError, before its caller does."""
    return asyncio.timeout(_PATIENCE_S)


def why_away(error: RPCError | RuntimeError | TimeoutError) -> str:
    """Say why a call did not reach Temporal; a defect of ours is raised again.

    A client that has not connected yet answers with a bare RuntimeError.
    """
    if isinstance(error, RPCError):
        return error.status.name
    if isinstance(error, TimeoutError):
        return "TIMED_OUT"
    if "Failed client connect" not in str(error):
        raise error
    return "NOT_CONNECTED"
