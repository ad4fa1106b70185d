"""Workflows that another workflow starts and that outlive it, and the share of their user.

Task queues are fair between keys: of a user with hundreds of waiting tasks and one with a single
task, the latter waits for few of the former. Activities and child workflows inherit the key. A
server without fairness ignores it.
"""

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.common import Priority

with workflow.unsafe.imports_passed_through():
    from schema.ids import UserId


def share_of(user_id: UserId) -> Priority:
    """Return the priority of a user's work: that of all users, in the user's own share."""
    return Priority(fairness_key=str(user_id))


def let_go(child: workflow.ChildWorkflowHandle[Any, Any]) -> None:
    """Leave a child to itself.

    How it ends is in its own history; asyncio would log a failure that is never looked at.
    """
    child.add_done_callback(_look_at)


def _look_at(child: "asyncio.Task[Any]") -> None:
    if not child.cancelled():
        child.exception()
