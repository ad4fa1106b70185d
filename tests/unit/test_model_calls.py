"""Model calls that a defect of ours breaks off: charged, counted, and repeated a few times only."""

from collections.abc import AsyncGenerator, Collection, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from schema.ids import ChatId, TurnId, UserId
from schema.turn_options import TurnOptions
from schema.turns import CallModelInput, TurnReference
from schema.usage import TokenUsage
from services.database import DatabaseUnavailableError
from services.events.writer import Appended
from services.models.context_windows import ContextWindows
from services.models.failures import Refusable
from services.models.gateway import (
    AnswerEnded,
    AnswerStarted,
    ModelEvent,
    ModelRequest,
    TextArrived,
)
from services.models.token_counts import TokenCounts
from services.prompts.conversation import PromptMaterial, SaidMessage
from services.shielding import DefectError
from services.subscriptions.budget_alerts import BudgetAlerts
from services.tools.refusals import RefusedTools
from services.turns.attempts import AttemptKey, NewAttempt
from services.turns.call_settings import RefusedOptions, call_settings
from services.turns.model_calls import ModelCalls
from services.turns.model_requests import PromptCutting
from services.turns.preparation import TurnRules
from services.turns.steps import Abandoned, Claim, Completed, Steps
from services.turns.structured_answers import AnswerChecks

TURN = TurnReference(
    turn_id=TurnId(uuid4()), chat_id=ChatId(uuid4()), user_id=UserId(uuid4()), model="m"
)
CALL = CallModelInput(turn=TURN, step=1, model="m")
CLAIM = Claim(run_id="r", activity_id="1", activity_attempt=1)
STARTED = AnswerStarted(TokenUsage(input_tokens=10))
ENDED = AnswerEnded(
    [{"type": "text", "text": "Hi."}], "end_turn", TokenUsage(input_tokens=10, output_tokens=3)
)


class FakeSteps:
    """Stores what became of each attempt; `complete` and `abandon` fail as they are told."""

    def __init__(
        self, *, complete: Exception | None = None, abandon: Sequence[Exception] = ()
    ) -> None:
        self.abandoned: list[tuple[str, TokenUsage, bool]] = []
        self._complete, self._abandon = complete, list(abandon)
        self.material = PromptMaterial([SaidMessage("user", "Hello")])
        self.options = TurnOptions()

    async def begin(
        self, call: CallModelInput, _: Claim, *, max_tokens: int, refused: Collection[Refusable]
    ) -> NewAttempt:
        """Open another attempt."""
        key = AttemptKey(TURN.user_id, TURN.turn_id, 1, len(self.abandoned) + 1)
        settings = call_settings(self.options, call.model, longest=max_tokens, refused=refused)
        return NewAttempt(key, call.model, 7, None, self.material, settings)

    async def checkpoint(self, *_: object, **__: object) -> None:
        """Store nothing."""

    async def complete(self, *_: object, **__: object) -> Completed:
        """Store the answer, unless told to fail."""
        if self._complete is not None:
            raise self._complete
        return Completed(Decimal(1), ())

    async def abandon(
        self,
        _: NewAttempt,
        *,
        answer: str,
        thinking: str = "",
        usage: TokenUsage,
        failed: bool,
        estimated: bool,
    ) -> Abandoned:
        """Store the failure, unless told to fail."""
        if self._abandon:
            raise self._abandon.pop(0)
        assert failed
        self.abandoned.append((f"{thinking}{answer}", usage, estimated))
        return Abandoned(len(self.abandoned), usage, Decimal(0))


class FakeGateway:
    """Answers every request with the same events, and counts them; an exception is raised."""

    def __init__(self, *events: ModelEvent | Exception) -> None:
        self.asked = 0
        self._events = events

    async def stream(self, _: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Yield the events."""
        self.asked += 1
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            yield event


async def append(*_: object, **__: object) -> Appended:
    """Append to a stream that nobody reads."""
    return Appended("1-1")


def calls_of(steps: FakeSteps, gateway: FakeGateway, *, attempts: int = 3) -> ModelCalls:
    """Return model calls over these fakes."""
    return ModelCalls(
        preparation=cast(
            "Any", SimpleNamespace(rules=TurnRules(max_steps=10, fallback_model=None))
        ),
        steps=cast("Steps", steps),
        ending=cast("Any", SimpleNamespace(store=append)),
        gateway=cast("Any", gateway),
        events=cast(
            "Any", SimpleNamespace(append=append, append_attempt=append, append_notice_once=append)
        ),
        tools=cast("Any", None),
        refused=RefusedTools(cast("Any", None), lambda: None),
        refused_options=RefusedOptions(),
        checks=AnswerChecks(),
        cutting=PromptCutting(
            ContextWindows({}, max_output_tokens=100),
            TokenCounts(cast("Any", None)),
            cast("Any", SimpleNamespace(are_taken_by=bool, reader_of=bool)),
        ),
        budgets=BudgetAlerts(cast("Any", None), lambda: None),
        max_output_tokens=100,
        attempts=attempts,
        max_tool_calls=32,
        delta_interval_s=0,
    )


async def test_an_answer_that_cant_be_stored_is_paid_for_at_most_as_often_as_attempts_allow() -> (
    None
):
    steps = FakeSteps(complete=ValueError("a value that no column holds"))
    gateway = FakeGateway(STARTED, TextArrived("Hi."), ENDED)
    calls = calls_of(steps, gateway, attempts=2)

    for exhausted in (False, True):
        with pytest.raises(DefectError) as raised:
            await calls.run(CALL, CLAIM)
        assert raised.value.exhausted is exhausted
        assert isinstance(raised.value.__cause__, ValueError)

    assert gateway.asked == 2
    assert steps.abandoned == [("Hi.", ENDED.usage, False)] * 2


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError(), MemoryError(), KeyError("type")]
)
async def test_an_exception_in_mid_answer_is_charged_by_what_is_known(error: Exception) -> None:
    steps = FakeSteps()
    calls = calls_of(steps, FakeGateway(STARTED, TextArrived("Hello there"), error))

    with pytest.raises(DefectError):
        await calls.run(CALL, CLAIM)

    ((text, usage, estimated),) = steps.abandoned
    assert (text, usage.input_tokens, estimated) == ("Hello there", 10, True)
    assert usage.output_tokens > 0


async def test_an_exception_before_the_answer_began_is_charged_by_estimate() -> None:
    steps = FakeSteps()

    with pytest.raises(DefectError):
        await calls_of(steps, FakeGateway(ValueError("x"))).run(CALL, CLAIM)

    assert steps.abandoned == [("", TokenUsage(input_tokens=7), True)]


async def test_an_exception_before_the_provider_is_asked_costs_nothing_and_is_counted() -> None:
    steps = FakeSteps()
    steps.material = PromptMaterial([SaidMessage("user", cast("str", None))])
    gateway = FakeGateway()

    with pytest.raises(DefectError) as raised:
        await calls_of(steps, gateway, attempts=1).run(CALL, CLAIM)

    assert raised.value.exhausted
    assert gateway.asked == 0
    assert steps.abandoned == [("", TokenUsage(), False)]


@pytest.mark.parametrize(
    ("failures", "stored"),
    [
        (1, ("", ENDED.usage, False)),
        (2, ("", TokenUsage(input_tokens=7), True)),
    ],
)
async def test_what_cant_be_stored_of_a_failed_attempt_is_left_out(
    failures: int, stored: tuple[str, TokenUsage, bool]
) -> None:
    steps = FakeSteps(complete=ValueError("x"), abandon=[ValueError("y")] * failures)

    with pytest.raises(DefectError):
        await calls_of(steps, FakeGateway(STARTED, TextArrived("Hi."), ENDED)).run(CALL, CLAIM)

    assert steps.abandoned == [stored]


async def test_an_outage_while_a_failed_attempt_is_stored_is_waited_for() -> None:
    steps = FakeSteps(complete=ValueError("x"), abandon=[DatabaseUnavailableError()])

    with pytest.raises(DefectError):
        await calls_of(steps, FakeGateway(STARTED, TextArrived("Hi."), ENDED)).run(CALL, CLAIM)

    assert steps.abandoned == [("Hi.", ENDED.usage, False)]
