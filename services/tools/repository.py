"""Owns in whose name a tool reads and writes what users own."""

from typing import Final

from schema.actors import ANONYMOUS, SERVICE, Actor, acting_user
from services.tools.definition import ToolExecution, ToolOutcome

NEEDS_A_USER: Final = ToolOutcome(
    output="This tool works in the name of a user, and this call is in nobody's.", is_error=True
)


def user_of(execution: ToolExecution) -> Actor | None:
    """Return the user that a call is for, None where it is for nobody.

    An administrator is a user like others in here: tools reach only what is their own.
    """
    user_id = execution.actor.user_id
    if user_id in {SERVICE.user_id, ANONYMOUS.user_id}:
        return None
    return acting_user(user_id)
