"""Owns that a stop is heard which came while an activity was just ending.

Temporal cancels whatever a workflow waits for. Where that is an activity whose cancellation is
waited for, and it ends by itself, its result is returned and the stop is forgotten.
"""

import asyncio
from typing import Final

from temporalio import workflow

_PATCH: Final = "a-stop-is-not-overtaken"
"""Turns that overlooked a stop before this was here go on as they did."""


def check_cancelled() -> None:
    """End here what is stopped. Errors: asyncio.CancelledError."""
    if workflow.cancellation_reason() is not None and workflow.patched(_PATCH):
        raise asyncio.CancelledError
