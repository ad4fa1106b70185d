"""Failures of activities: how often each is retried, and what a workflow's history has of it.

Outages are retried for as long as it takes. Anything unexpected is a defect of ours: tried a few
times, since a few pass, and then final, so that nothing is repeated for ever; the last one alerts
the administrators. Messages of exceptions can quote what a person or a model wrote. They are
logged where the activity ran; Temporal gets the type.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import structlog
from prometheus_client import Counter
from temporalio import activity
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.service import RPCError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from schema.names import Work
from services.database import DatabaseUnavailableError
from services.embeddings import EmbeddingRefusedError, EmbeddingUnavailableError
from services.shielding import DefectError
from services.turns.preparation import TurnNotActiveError
from services.turns.steps import AttemptOvertakenError

_log = structlog.get_logger(__name__)

DEFECT_ATTEMPTS: Final = 5
"""How often an activity is tried that fails unexpectedly."""

# What passes by itself: servers that are away, and turns that others still hold.
_CAUSES: Final[dict[type[Exception], str]] = {
    DatabaseUnavailableError: "database",
    RPCError: "temporal",
    ConnectionError: "network",
    TimeoutError: "timeout",
    TurnNotActiveError: "turn_not_active",
    AttemptOvertakenError: "overtaken",
}
OUTAGES: Final = tuple(_CAUSES)
_MOST_POSTPONED: Final = 10_000
_REPORT_TIMEOUT_S: Final = 5.0

_POSTPONED: Final = Counter(
    "everturn_activities_postponed",
    "Attempts at activities that an outage ended, to be made again.",
    ("cause",),
)
_DEFECTS: Final = Counter(
    "everturn_defects",
    "Attempts at activities, and works, that failed unexpectedly; `final` ones are not made again.",
    ("activity", "final"),
)

for _cause in _CAUSES.values():
    _POSTPONED.labels(_cause)
for _work in Work:
    _DEFECTS.labels(_work.value, "true")

ReportDefect: TypeAlias = Callable[[str, str], Awaitable[None]]
"""Alerts the administrators of a defect: the activity and the type of the exception."""


class FailureTranslation(Interceptor):
    """Replaces exceptions of activities by failures without content; ends what keeps failing."""

    def __init__(self, report: ReportDefect) -> None:
        self._report = report
        self._postponed = _Postponements()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's name
        """Wrap the activity."""
        return _Translating(next, self._report, self._postponed)


def _cause_of(error: Exception) -> str:
    return next(cause for kind, cause in _CAUSES.items() if isinstance(error, kind))


class _Postponements:
    """How many attempts of each activity were put off on purpose, as far as this process has seen.

    Temporal counts every attempt alike. In a fleet others have seen the rest, so a defect may be
    final earlier after an outage, but never later.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str | None, str], int] = OrderedDict()

    def add(self, info: activity.Info) -> None:
        key = _key(info)
        self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > _MOST_POSTPONED:
            self._counts.popitem(last=False)

    def count(self, info: activity.Info) -> int:
        return self._counts.get(_key(info), 0)

    def forget(self, info: activity.Info) -> None:
        self._counts.pop(_key(info), None)


def _key(info: activity.Info) -> tuple[str | None, str]:
    return info.workflow_run_id, info.activity_id


class _Translating(ActivityInboundInterceptor):
    def __init__(
        self,
        next: ActivityInboundInterceptor,  # noqa: A002 -- the SDK's name
        report: ReportDefect,
        postponed: _Postponements,
    ) -> None:
        super().__init__(next)
        self._report = report
        self._postponed = postponed

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 -- the SDK's signature
        info = activity.info()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            workflow_id=info.workflow_id, activity=info.activity_type, attempt=info.attempt
        )
        # From zero: an increase from nothing can't be seen.
        _DEFECTS.labels(info.activity_type, "true")
        try:
            result = await super().execute_activity(input)
        except asyncio.CancelledError:
            raise
        except FailureError as error:
            if isinstance(error, ApplicationError) and not error.non_retryable:
                self._postponed.add(info)
            raise
        except OUTAGES as error:
            self._postponed.add(info)
            note_outage(error)
            raise _failure_of(error) from None
        except Exception as error:  # noqa: BLE001 -- whatever it is, its words stay here
            raise await self._failure_of_defect(info, error) from None
        self._postponed.forget(info)
        return result

    async def _failure_of_defect(self, info: activity.Info, error: Exception) -> ApplicationError:
        attempts = info.attempt - self._postponed.count(info)
        is_final = attempts >= DEFECT_ATTEMPTS
        if isinstance(error, DefectError):
            is_final = error.exhausted
        is_last = is_final or _is_last(info)
        if is_last:
            self._postponed.forget(info)
        report = self._report if is_last else None
        await note_defect(info.activity_type, error, is_final=is_final, report=report)
        return _failure_of(error, non_retryable=is_final)


def note_outage(error: Exception) -> None:
    """Count and log that an outage ended an attempt, which will be made again."""
    _POSTPONED.labels(_cause_of(error)).inc()
    _log.warning("activity_postponed", error=type(error).__name__)


async def note_defect(
    name: str, error: Exception, *, is_final: bool, report: ReportDefect | None
) -> None:
    """Count and log a defect, and report it where that is due; what fails then is only logged."""
    _DEFECTS.labels(name, str(is_final).lower()).inc()
    _log.error("activity_failed", exc_info=error, final=is_final)
    if report is None:
        return
    try:
        async with asyncio.timeout(_REPORT_TIMEOUT_S):
            await report(name, type_of(error))
    except Exception:  # noqa: BLE001 -- it is in the log
        _log.exception("defect_not_reported")


def type_of(error: Exception) -> str:
    """Return the type of an exception, or of the defect that it stands for."""
    cause = error.__cause__ if isinstance(error, DefectError) else None
    return type(cause or error).__name__


def _is_last(info: activity.Info) -> bool:
    """Whether the activity's own policy has no attempt left."""
    policy = info.retry_policy
    return policy is not None and 0 < policy.maximum_attempts <= info.attempt


def _failure_of(error: Exception, *, non_retryable: bool = False) -> ApplicationError:
    name = type_of(error)
    return ApplicationError(f"{name}: see the worker's log", type=name, non_retryable=non_retryable)


@contextmanager
def embedding_failures(*, refused: str) -> Iterator[None]:
    """Make a refusal final, and an outage retryable, after the delay that the service asks for.

    Errors: ApplicationError, of the type `refused` for the one.
    """
    try:
        yield
    except EmbeddingRefusedError as error:
        _log.warning("embedding_refused", reason=str(error))
        raise ApplicationError(
            "The embedding was refused", type=refused, non_retryable=True
        ) from None
    except EmbeddingUnavailableError as error:
        _log.warning("embedding_postponed", reason=str(error))
        raise ApplicationError(
            "The embedding service is not available",
            type=type(error).__name__,
            next_retry_delay=error.retry_after,
        ) from None
