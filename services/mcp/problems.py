"""Owns saying in a sentence what a server did wrong, whatever the SDK raised because of it."""

from collections.abc import Iterator
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND
from pydantic import ValidationError

from services.mcp.errors import McpServerError
from services.mcp.words import bounded
from services.outgoing.errors import OutgoingError

_OURS: Final = (McpServerError, OutgoingError)
"""The errors whose texts are sentences for an administrator."""


def problem_of(error: Exception, ended_by: str | None) -> str:
    """Return what an error says of a server; what ended its process explains what came of that."""
    causes = causes_of(error)
    if isinstance(causes[0], _OURS):
        return str(causes[0])
    return ended_by or _words_for(causes[0])


def causes_of(error: Exception) -> list[Exception]:
    """Return the errors that a group stands for; ours first."""
    return sorted(_flattened(error), key=lambda cause: not isinstance(cause, _OURS))


def _words_for(cause: Exception) -> str:
    if isinstance(cause, MCPError):
        return _words_for_answer(cause.code, cause.message)
    if isinstance(cause, ValidationError):
        return "It answered what MCP does not allow."
    return f"It can't be spoken with ({type(cause).__name__})."


def _words_for_answer(code: int, message: str) -> str:
    if code == CONNECTION_CLOSED:
        return "It closed the connection."
    if code == METHOD_NOT_FOUND:
        return "It does not list tools."
    return f"It answered with the error {code}: {bounded(message, 400)}"


def _flattened(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _flattened(inner)
    else:
        yield error
