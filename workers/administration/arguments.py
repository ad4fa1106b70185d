"""Owns reading what people write on the command line for objects of JSON."""

import json
from collections.abc import Sequence
from typing import Any

import typer


def json_object(text: str, *, name: str) -> dict[str, Any]:
    """Return the object that is written. Errors: typer.BadParameter."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise typer.BadParameter("this is not valid JSON", param_hint=name) from None
    if not isinstance(value, dict):
        raise typer.BadParameter("this has to be a JSON object", param_hint=name)
    return value


def pairs(given: Sequence[str] | None, *, name: str) -> dict[str, str]:
    """Return names with their values. Errors: typer.BadParameter."""
    divided = [pair.partition("=") for pair in given or ()]
    if not all(key and sign for key, sign, _ in divided):
        raise typer.BadParameter("this has to be NAME=VALUE", param_hint=name)
    return {key: value for key, _, value in divided}
