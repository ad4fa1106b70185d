"""Which variables of the environment Everturn reads."""

from collections.abc import Iterable
from typing import Final

from pydantic import AliasChoices

from services.settings import Settings

_OF_LIBRARIES: Final = ("OTEL_",)


def known_settings() -> set[str]:
    """Return every setting's variable, and the ones that name files with their values."""
    names = {_variable(field) for field in Settings.model_fields}
    return names | {f"{name}_FILE" for name in names}


def unknown_settings(names: Iterable[str]) -> list[str]:
    """Return the variables that neither Everturn nor its libraries read."""
    return sorted(
        name for name in set(names) - known_settings() if not name.startswith(_OF_LIBRARIES)
    )


def _variable(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"EVERTURN_{field.upper()}"
