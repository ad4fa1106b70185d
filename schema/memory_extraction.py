"""Payloads of memory extraction: a turn, counts and costs, never what was said or suggested."""

from decimal import Decimal
from enum import StrEnum

from schema.turns import TurnReference
from schema.wire import Payload


class NotExtracted(StrEnum):
    """Why a turn was not read, or not to the end."""

    GONE = "gone"
    NOT_WANTED = "not wanted"
    NOTHING_SAID = "nothing said"
    READ_BEFORE = "read before"
    NO_BUDGET = "no budget"
    GAVE_UP = "gave up"


class ExtractMemoriesInput(Payload):
    """The turn to learn from; with `gave_up`, to settle what its last attempt left open."""

    turn: TurnReference
    gave_up: bool = False


class ExtractionOutcome(Payload):
    """How many suggestions were stored, what they cost, and why there are none, if nobody asked."""

    suggestions: int = 0
    cost_usd: Decimal = Decimal(0)
    problem: NotExtracted | None = None
