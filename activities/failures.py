"""What a workflow's history may contain of a failure: its type, never its message.

Messages of exceptions can quote what a person or a model wrote. They are logged where the
activity ran; Temporal gets the type.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from services.database import DatabaseUnavailableError
from services.embeddings import EmbeddingRefusedError, EmbeddingUnavailableError

_log = structlog.get_logger(__name__)

# Temporary conditions, expected during an outage: no traceback is needed for them.
_EXPECTED = (DatabaseUnavailableError,)


class FailureTranslation(Interceptor):
    """Replaces exceptions of activities by failures without content."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's name
        """Wrap the activity."""
        return _Translating(next)


class _Translating(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 -- the SDK's signature
        info = activity.info()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            workflow_id=info.workflow_id, activity=info.activity_type, attempt=info.attempt
        )
        try:
            return await super().execute_activity(input)
        except (FailureError, asyncio.CancelledError):
            raise
        except _EXPECTED as error:
            _log.warning("activity_postponed", error=type(error).__name__)
            raise _failure_of(error) from None
        except Exception as error:  # noqa: BLE001 -- whatever it is, its words stay here
            _log.error("activity_failed", exc_info=error)
            raise _failure_of(error) from None


def _failure_of(error: Exception) -> ApplicationError:
    name = type(error).__name__
    return ApplicationError(f"{name}: see the worker's log", type=name)


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
