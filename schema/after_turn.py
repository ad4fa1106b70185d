"""Payloads of the work after a turn: references, counts and costs, never what was said."""

from decimal import Decimal
from enum import StrEnum

from pydantic import AliasChoices, Field

from schema.names import Work
from schema.turns import TurnReference
from schema.wire import Payload


class NotDone(StrEnum):
    """Why a work was not done, or not to the end."""

    GONE = "gone"
    NOT_WANTED = "not wanted"
    NOTHING_SAID = "nothing said"
    READ_BEFORE = "read before"
    HAS_TITLE = "has a title"
    REFUSED = "refused"
    UNUSABLE = "unusable"
    NO_BUDGET = "no budget"
    GAVE_UP = "gave up"


class AfterTurnInput(Payload):
    """A turn that was completed, and the works that are due."""

    turn: TurnReference
    works: tuple[Work, ...]


class WorkInput(Payload):
    """The turn to work on; with `gave_up`, to settle what the last attempt left open."""

    turn: TurnReference
    gave_up: bool = False


class WorkOutcome(Payload):
    """How many things a work stored, what all its attempts cost, and why it did not do its best.

    `stored` counts what the work is for: suggestions, titles, summaries. The release before called
    it `suggestions`.
    """

    stored: int = Field(0, validation_alias=AliasChoices("stored", "suggestions"))
    cost_usd: Decimal = Decimal(0)
    problem: NotDone | None = None
