"""Owns the base of mistakes in setting a process up, whose sentence says what to do.

SetupError
MissingApiKeyError    no model can be called
WeakSecretError       services/auth/tokens.py
UnknownPriceError     services/models/pricing.py
UnsafeRoleError       services/database/migrations.py
"""


class SetupError(Exception):
    """The process can't start as it was set up."""


class MissingApiKeyError(SetupError):
    """No model can be called."""

    def __init__(self) -> None:
        super().__init__(
            "ANTHROPIC_API_KEY is not set. Set it, or run `everturn dev`, which has a demo model."
        )
