"""Owns asking the embedder for the vector of one text while somebody waits for it."""

import asyncio
from datetime import timedelta
from typing import Final

from services.embeddings.embedder import Embedder, Purpose
from services.embeddings.errors import EmbeddingUnavailableError

PATIENCE: Final = timedelta(seconds=5)
"""How long a request waits for a vector, whatever the embedder itself would wait."""


async def vector_of(
    embedder: Embedder, text: str, *, purpose: Purpose, patience: timedelta
) -> list[float]:
    """Return the vector of a text.

    Errors: EmbeddingError; EmbeddingUnavailableError also where patience ends.
    """
    try:
        async with asyncio.timeout(patience.total_seconds()):
            [vector] = await embedder.embed([text], purpose=purpose)
    except TimeoutError:
        raise EmbeddingUnavailableError("The embedder did not answer in time.") from None
    return vector
