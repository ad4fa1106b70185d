"""Embedders that ask a provider: any OpenAI-compatible endpoint, or Voyage AI."""

from collections.abc import Sequence
from typing import Final

from services.embeddings.embedder import Purpose, prepared, requests
from services.embeddings.endpoint import EmbeddingEndpoint

OPENAI_ADDRESS: Final = "https://api.openai.com/v1"

# OpenAI takes 2,048 texts; servers that people run themselves often stop at 32.
_OPENAI_TEXTS: Final = 32
_OPENAI_BYTES: Final = 100_000
# The API can't be asked to cut and refuses a text of more than 8,191 tokens.
_OPENAI_TEXT_BYTES: Final = 8_000


class OpenAiCompatibleEmbedder:
    """Embeds with a model of OpenAI, or of any server that speaks its API at `base_url`.

    `shorten` asks for vectors of `dimensions`; without it the model's own size must match.
    Source: https://platform.openai.com/docs/api-reference/embeddings
    """

    max_batch: Final = _OPENAI_TEXTS

    def __init__(
        self,
        *,
        api_key: str | None,
        model: str,
        dimensions: int,
        shorten: bool,
        base_url: str,
        timeout_s: float,
    ) -> None:
        self.name: Final = f"openai/{model}/{dimensions}"
        self.dimensions: Final = dimensions
        self._request: dict[str, object] = {"model": model, "encoding_format": "float"}
        if shorten:
            self._request["dimensions"] = dimensions
        self._endpoint = EmbeddingEndpoint(
            url=f"{base_url.rstrip('/')}/embeddings", api_key=api_key, timeout_s=timeout_s
        )

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:  # noqa: ARG002 -- the API knows no purposes
        """Return a vector for each text; the API has no purposes. See `Embedder`.

        Errors: EmbeddingError.
        """
        vectors: list[list[float]] = []
        ready = prepared(texts, longest_bytes=_OPENAI_TEXT_BYTES)
        for batch in requests(ready, most_texts=_OPENAI_TEXTS, most_bytes=_OPENAI_BYTES):
            vectors += await self._endpoint.vectors(
                {**self._request, "input": batch}, count=len(batch), dimensions=self.dimensions
            )
        return vectors

    async def close(self) -> None:
        """Close all connections."""
        await self._endpoint.close()


VOYAGE_ADDRESS: Final = "https://api.voyageai.com"

# Voyage takes more of both from its newest models; these hold for all of them (128 texts and
# 120,000 tokens), since a token is at least a byte.
_VOYAGE_TEXTS: Final = 128
_VOYAGE_BYTES: Final = 100_000


class VoyageEmbedder:
    """Embeds with a model of Voyage AI, or with what speaks its API at `base_url`.

    Source: https://docs.voyageai.com/reference/embeddings-api
    """

    max_batch: Final = _VOYAGE_TEXTS

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
        """Return a vector for each text. See `Embedder`.

        Errors: EmbeddingError.
        """
        vectors: list[list[float]] = []
        ready = prepared(texts, longest_bytes=_VOYAGE_BYTES)
        for batch in requests(ready, most_texts=_VOYAGE_TEXTS, most_bytes=_VOYAGE_BYTES):
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
