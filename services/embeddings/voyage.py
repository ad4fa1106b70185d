"""Owns how Voyage AI is asked for vectors."""

from collections.abc import Sequence
from typing import Final

from services.embeddings.embedder import Purpose
from services.embeddings.endpoint import EmbeddingEndpoint
from services.embeddings.texts import prepared, requests

ADDRESS: Final = "https://api.voyageai.com"

# Voyage takes more of both from its newest models; these hold for all of them (128 texts and
# 120,000 tokens), since a token is at least a byte.
_MOST_TEXTS: Final = 128
_MOST_BYTES: Final = 100_000


class VoyageEmbedder:
    """Embeds with a model of Voyage AI, or with what speaks its API at `base_url`.

    Source: https://docs.voyageai.com/reference/embeddings-api
    """

    max_batch: Final = _MOST_TEXTS

    def __init__(
        self, *, api_key: str, model: str, dimensions: int, base_url: str, timeout_s: float
    ) -> None:
        self.name: Final = f"voyage/{model}/{dimensions}"
        self.dimensions: Final = dimensions
        self._model = model
        self._endpoint = EmbeddingEndpoint(
            # Voyage's own documents give the address both with the version and without.
            url=f"{base_url.rstrip('/').removesuffix('/v1')}/v1/embeddings",
            api_key=api_key,
            timeout_s=timeout_s,
        )

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        """Return a vector for each text, as `Embedder` promises it.

        Errors: EmbeddingError.
        """
        vectors: list[list[float]] = []
        ready = prepared(texts, longest_bytes=_MOST_BYTES)
        for batch in requests(ready, most_texts=_MOST_TEXTS, most_bytes=_MOST_BYTES):
            body = {
                "model": self._model,
                "input": batch,
                "input_type": purpose.value,
                "output_dimension": self.dimensions,
                "truncation": True,
            }
            vectors += await self._endpoint.vectors(
                body, count=len(batch), dimensions=self.dimensions
            )
        return vectors

    async def close(self) -> None:
        """Close all connections."""
        await self._endpoint.close()
