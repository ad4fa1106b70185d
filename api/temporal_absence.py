"""Owns telling Temporal's being away from a defect of ours."""

from temporalio.service import RPCError


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
