"""Owns how an endpoint that speaks OpenAI's embeddings API is asked for vectors."""

from collections.abc import Sequence
from typing import Final

from services.embeddings.embedder import Purpose
from services.embeddings.endpoint import EmbeddingEndpoint
from services.embeddings.texts import prepared, requests

ADDRESS: Final = "https://api.openai.com/v1"

# OpenAI takes 2,048 texts; servers that people run themselves often stop at 32.
_MOST_TEXTS: Final = 32
_MOST_BYTES: Final = 100_000
# The API can't be asked to cut and refuses a text of more than 8,191 tokens.
_LONGEST_TEXT_BYTES: Final = 8_000


class OpenAiCompatibleEmbedder:
    """Embeds with a model of OpenAI, or of any server that speaks its API at `base_url`.

    `shorten` asks for vectors of `dimensions`; without it the model's own size has to be that.
    Source: https://platform.openai.com/docs/api-reference/embeddings
    """

    max_batch: Final = _MOST_TEXTS

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
        """Return a vector for each text, as `Embedder` promises it; the purpose is of no account.

        Errors: EmbeddingError.
        """
        vectors: list[list[float]] = []
        ready = prepared(texts, longest_bytes=_LONGEST_TEXT_BYTES)
        for batch in requests(ready, most_texts=_MOST_TEXTS, most_bytes=_MOST_BYTES):
            vectors += await self._endpoint.vectors(
                {**self._request, "input": batch}, count=len(batch), dimensions=self.dimensions
            )
        return vectors

    async def close(self) -> None:
        """Close all connections."""
        await self._endpoint.close()
