"""Failures of activities: outages are retried without end, defects a bounded number of times."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.failures import DEFECT_ATTEMPTS, FailureTranslation
from services.database import DatabaseUnavailableError
from services.shielding import DefectError

SECRET = "what a person wrote"


class Attempts:
    """Runs one activity again and again, as Temporal does."""

    def __init__(self, policy: RetryPolicy | None = None) -> None:
        self.reported: list[tuple[str, str]] = []
        self._translation = FailureTranslation(self._report)
        self._policy = policy
        self._attempt = 0

    async def fail(self, error: Exception) -> ApplicationError:
        """Make the next attempt, in which the activity raises `error`; return its failure."""
        self._attempt += 1

        async def run() -> None:
            raise error

        environment = ActivityEnvironment()
        environment.info = replace(
            environment.info, attempt=self._attempt, retry_policy=self._policy
        )
        with pytest.raises(ApplicationError) as raised:
            await environment.run(self._execute, run)
        assert SECRET not in str(raised.value)
        return raised.value

    async def _execute(self, run: Callable[[], Awaitable[None]]) -> None:
        inbound = self._translation.intercept_activity(_Innermost())
        await inbound.execute_activity(
            ExecuteActivityInput(fn=run, args=(), executor=None, headers={})
        )

    async def _report(self, name: str, error: str) -> None:
        self.reported.append((name, error))
        raise DatabaseUnavailableError


class _Innermost(ActivityInboundInterceptor):
    def __init__(self) -> None:
        pass

    async def execute_activity(self, input: ExecuteActivityInput) -> None:  # noqa: A002 -- the SDK's name
        await input.fn()


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), KeyError(SECRET), RecursionError(SECRET), MemoryError(SECRET)]
)
async def test_a_defect_is_tried_a_few_times_then_final_and_reported(error: Exception) -> None:
    attempts = Attempts()

    failures = [await attempts.fail(error) for _ in range(DEFECT_ATTEMPTS)]

    final = [failure.non_retryable for failure in failures]
    assert final == [False] * (DEFECT_ATTEMPTS - 1) + [True]
    assert {failure.type for failure in failures} == {type(error).__name__}
    assert attempts.reported == [("unknown", type(error).__name__)]


@pytest.mark.parametrize("error", [DatabaseUnavailableError(), ConnectionResetError(SECRET)])
async def test_outages_are_retried_without_end_and_do_not_count(error: Exception) -> None:
    attempts = Attempts()

    outages = [await attempts.fail(error) for _ in range(3 * DEFECT_ATTEMPTS)]
    defects = [await attempts.fail(ValueError()) for _ in range(DEFECT_ATTEMPTS)]

    assert not any(failure.non_retryable for failure in [*outages, *defects[:-1]])
    assert defects[-1].non_retryable


async def test_failures_that_an_activity_means_to_be_retried_do_not_count() -> None:
    attempts = Attempts()
    for _ in range(2 * DEFECT_ATTEMPTS):
        assert not (await attempts.fail(ApplicationError("later"))).non_retryable

    assert not (await attempts.fail(ValueError())).non_retryable


async def test_a_defect_that_was_charged_ends_when_its_attempts_are_used_up() -> None:
    attempts = Attempts()
    for exhausted in (False, False, True):
        defect = DefectError(exhausted=exhausted)
        defect.__cause__ = UnicodeEncodeError("utf-8", SECRET, 0, 1, "")
        failure = await attempts.fail(defect)
        assert (failure.type, failure.non_retryable) == ("UnicodeEncodeError", exhausted)

    assert attempts.reported == [("unknown", "UnicodeEncodeError")]


async def test_a_defect_of_work_without_retries_is_reported_at_once() -> None:
    attempts = Attempts(RetryPolicy(maximum_attempts=1))

    await attempts.fail(ValueError())

    assert attempts.reported == [("unknown", "ValueError")]
