"""Owns the refusals that the administration of tools shares."""

from enum import StrEnum


class ToolRefusal(StrEnum):
    """Why a tool, or what tools come from, can't be registered or tried."""

    NAME_TAKEN = "name_taken"
    NO_ENCRYPTION_KEY = "no_encryption_key"
    TOO_MANY = "too_many"
