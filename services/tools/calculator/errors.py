"""Owns what can be wrong with an expression, in words that let a model correct it.

CalculationError
├── NotationError
├── UndefinedError
├── TooLargeError
└── TooSmallError
"""


class CalculationError(Exception):
    """The expression has no answer; the message says why."""


class NotationError(CalculationError):
    """The text is not an expression that the calculator reads."""


class UndefinedError(CalculationError):
    """The operation has no real result for these numbers."""


class TooLargeError(CalculationError):
    """A number is beyond what the calculator works with."""

    def __init__(
        self, what: str = "A number in this expression", limit: str = "1,000 digits"
    ) -> None:
        super().__init__(f"{what} is too large: the limit is {limit}.")


class TooSmallError(CalculationError):
    """A number is closer to zero than the calculator works with."""

    def __init__(self) -> None:
        super().__init__(
            "A number in this expression is too close to zero: the limit is about 1e-1000."
        )
