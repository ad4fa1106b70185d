"""Owns what Temporal is told where texts could not be embedded."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from temporalio.exceptions import ApplicationError

from services.embeddings import EmbeddingRefusedError, EmbeddingUnavailableError

_log = structlog.get_logger(__name__)


@contextmanager
def embedding_failures(*, refused: str) -> Iterator[None]:
    """Make a refusal final, and an absence one to be retried, as late as the service asks for.

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
