"""How long a tool that does not answer is tried again, and with which pauses."""

from datetime import timedelta
from itertools import pairwise
from typing import cast

import pytest

from schema.tools import RetryClass, ToolDefinition, ToolKind
from services.events.writer import EventWriter
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError
from services.tools.executor import AnswersLater, ToolExecutor
from services.tools.ledger import ToolLedger
from services.turns.tool_attempts import OUTCOME_UNKNOWN, ToolAttempts, ToolPostponedError
from tests.fixtures.tool_executions import an_execution

SECOND = timedelta(seconds=1)


class Away:
    """An executor whose tool does not answer."""

    def __init__(self, error: ToolUnavailableError) -> None:
        self._error = error

    async def run(
        self, tool: ToolDefinition, tool_input: object, execution: ToolExecution
    ) -> ToolOutcome | AnswersLater:
        """Fail."""
        raise self._error


async def attempt(
    number: int,
    *,
    elapsed_s: float,
    kind: ToolKind = ToolKind.WORKFLOW,
    retry_class: RetryClass = RetryClass.KEYED,
    timeout_s: float = 30.0,
    reached: bool = False,
    retry_after: timedelta | None = None,
) -> timedelta | ToolOutcome | AnswersLater | None:
    """Return the pause before the next attempt, or the outcome."""
    tool = ToolDefinition(
        name="it",
        description="",
        input_schema={"type": "object"},
        kind=kind,
        timeout=timedelta(seconds=timeout_s),
        retry_class=retry_class,
    )
    away = Away(ToolUnavailableError("Unavailable.", reached=reached, retry_after=retry_after))
    attempts = ToolAttempts(
        cast("ToolExecutor", away),
        cast("ToolLedger", None),
        cast("EventWriter", None),
        attempts=3,
    )
    execution = an_execution(attempt=number, elapsed=timedelta(seconds=elapsed_s))
    try:
        return await attempts.run(tool, {}, execution)
    except ToolPostponedError as error:
        return error.retry_after


async def attempts_of(
    timeout_s: float, *, retry_class: RetryClass = RetryClass.KEYED
) -> list[float]:
    """Return when a call is attempted, from the first attempt on, until it is given up."""
    at = [0.0]
    while True:
        pause = await attempt(
            len(at), elapsed_s=at[-1], timeout_s=timeout_s, retry_class=retry_class
        )
        if not isinstance(pause, timedelta):
            return at
        at.append(at[-1] + pause.total_seconds())


@pytest.mark.parametrize("retry_class", RetryClass)
async def test_a_server_that_restarts_is_waited_for_until_the_timeout(
    retry_class: RetryClass,
) -> None:
    at = await attempts_of(30.0, retry_class=retry_class)

    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert at[-1] == pytest.approx(30.0)
    assert max(pauses) <= 12.0
    assert pauses[-2] > pauses[0]
    assert any(8 <= moment <= 18 for moment in at)
    assert len(at) < 15


async def test_a_day_for_the_answer_is_not_a_day_of_attempts() -> None:
    at = await attempts_of(86_400.0)

    assert at[-1] == pytest.approx(900.0)
    assert len(at) < 130


async def test_a_short_timeout_leaves_the_usual_attempts() -> None:
    assert await attempt(2, elapsed_s=1, timeout_s=0.01) is None
    assert isinstance(await attempt(3, elapsed_s=2, timeout_s=0.01), ToolOutcome)


async def test_the_servers_own_wait_is_kept() -> None:
    assert await attempt(1, elapsed_s=0, retry_after=7 * SECOND) == 7 * SECOND


async def test_a_wait_that_outlasts_the_timeout_is_not_begun_after_the_usual_attempts() -> None:
    outcome = await attempt(3, elapsed_s=20, retry_after=20 * SECOND)

    assert isinstance(outcome, ToolOutcome)
    assert outcome.output == "Unavailable."


async def test_a_call_that_may_have_arrived_and_may_run_once_is_not_repeated() -> None:
    outcome = await attempt(1, elapsed_s=0, reached=True, retry_class=RetryClass.NEVER)

    assert isinstance(outcome, ToolOutcome)
    assert outcome.output == f"Unavailable. {OUTCOME_UNKNOWN}"


async def test_a_tool_of_ours_is_tried_a_few_times_however_long_it_may_take() -> None:
    assert await attempt(2, elapsed_s=0.5, kind=ToolKind.LOCAL) is None
    assert isinstance(await attempt(3, elapsed_s=1.5, kind=ToolKind.LOCAL), ToolOutcome)
