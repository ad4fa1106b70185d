"""Owns what can go wrong while texts are embedded.

EmbeddingError
├── EmbeddingUnavailableError    passing: the same call may work later; may say when
├── EmbeddingRefusedError        final for this call: a blank text, the key, the model, the size
└── EmbeddingAnswerError         an answer that is none; a few more attempts are worth it, no more

Nothing is retried here: that belongs to Temporal. No message holds a text, a key or the words of
a provider, which may repeat both.
"""

from datetime import timedelta


class EmbeddingError(Exception):
    """The texts have no vectors."""


class EmbeddingUnavailableError(EmbeddingError):
    """The provider can't be reached, is failing, or limits the rate of requests."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EmbeddingRefusedError(EmbeddingError):
    """The call is refused and will be again."""


class EmbeddingAnswerError(EmbeddingError):
    """What came back are not the vectors that were asked for."""
