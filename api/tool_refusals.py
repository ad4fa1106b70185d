"""Owns turning refusals of the administration of tools into HTTP answers."""

from typing import assert_never

from api.errors import ApiError, invalid, refused
from schema.errors import ErrorCode
from services.resources import Conflict, InvalidField, ToolRefusal, Unreachable


def tool_refused(
    refusal: Conflict | Unreachable | ToolRefusal | InvalidField, noun: str
) -> ApiError:
    """Return the error for a refusal; `noun` is what was asked for."""
    match refusal:
        case InvalidField(path=path, message=message):
            return invalid(path, message)
        case ToolRefusal():
            return ApiError(ErrorCode.CONFLICT, _sentence(refusal, noun))
        case Conflict() | Unreachable():
            return refused(refusal, noun)
        case _:
            assert_never(refusal)


def _sentence(refusal: ToolRefusal, noun: str) -> str:
    match refusal:
        case ToolRefusal.NAME_TAKEN:
            return f"This name is taken. Choose another one for the {noun}."
        case ToolRefusal.NO_ENCRYPTION_KEY:
            return (
                "Secrets can't be stored: no encryption key is set. "
                "Set EVERTURN_ENCRYPTION_KEYS for the API and the workers."
            )
        case ToolRefusal.TOO_MANY:
            return "There are too many MCP servers. Delete one first."
        case _:
            assert_never(refusal)
