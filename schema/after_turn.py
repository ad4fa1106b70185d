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


class BatchOutcome(Payload):
    """What a batch of works did, by kind of work, problem and failure.

    `stored` counts what works are for. `failures` are attempts that failed, whether the work was
    tried again or given up, by why. The cost is that of all attempts at the works that are done.
    """

    done: dict[Work, int] = Field(default_factory=dict)
    stored: dict[Work, int] = Field(default_factory=dict)
    problems: dict[NotDone, int] = Field(default_factory=dict)
    failures: dict[str, int] = Field(default_factory=dict)
    cost_usd: Decimal = Decimal(0)


class AfterTurnInput(Payload):
    """A turn that was completed, and the works that are due: of runs of the release before."""

    turn: TurnReference
    works: tuple[Work, ...]


class WorkInput(Payload):
    """The turn to work on, or with `gave_up` what to settle: of runs of the release before."""

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
