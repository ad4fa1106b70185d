"""Embedders: texts become vectors, by a model in this process or by a provider's endpoint."""

from services.embeddings.embedder import (
    Embedder,
    EmbeddingAnswerError,
    EmbeddingError,
    EmbeddingRefusedError,
    EmbeddingUnavailableError,
    Purpose,
)
from services.embeddings.selection import make_embedder

__all__ = [
    "Embedder",
    "EmbeddingAnswerError",
    "EmbeddingError",
    "EmbeddingRefusedError",
    "EmbeddingUnavailableError",
    "Purpose",
    "make_embedder",
]
