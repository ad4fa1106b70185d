"""The embedding model that runs in this process: where its files are, and when they are loaded."""

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.embeddings.embedder import Purpose, prepared

if TYPE_CHECKING:
    from services.embeddings.word_vectors import WordVectors

# Tokenizing takes 0.3 ms for 1,000 characters; the way to a thread and back takes 0.1 ms.
_INLINE_CHARS: Final = 1_000
_LONGEST_TEXT_BYTES: Final = 100_000

MODEL_FILES: Final = Path(sys.prefix, "share", "everturn", "wordllama")
"""Where `make install` unpacks the wheel of wordllama, of which only the data is used.

Its compiled code exists for few platforms and interpreters; the weights and the tokenizer, with
packages that exist for all of them, give the same vectors everywhere.
"""


class EmbeddedModel:
    """Embeds with the model in the wheel of wordllama; nothing is ever downloaded.

    The model is loaded once, by the first call. One short text is embedded in the event
    loop; other calls wait for one thread of their own, so that they hold up neither the loop nor
    the threads that asyncio shares.
    """

    name: Final = "wordllama-256"
    dimensions: Final = 256
    max_batch: Final = 256

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-model")
        self._vectors: WordVectors | None = None

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:  # noqa: ARG002 -- the model knows no purposes
        """Return a vector for each text, as `Embedder` promises it, whatever the purpose.

        Errors: EmbeddingRefusedError for a blank text.
        """
        ready = prepared(texts, longest_bytes=_LONGEST_TEXT_BYTES)
        if self._vectors is not None and len(ready) == 1 and len(ready[0]) <= _INLINE_CHARS:
            return _embedded(self._vectors, ready)
        loop = asyncio.get_running_loop()
        vectors: list[list[float]] = []
        # In pieces, so that callers take turns, and work for a cancelled caller stops.
        for start in range(0, len(ready), self.max_batch):
            piece = ready[start : start + self.max_batch]
            vectors += await loop.run_in_executor(self._thread, self._embed, piece)
        return vectors

    async def close(self) -> None:
        """Release the thread; texts that still wait for it are not embedded."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> list[list[float]]:
        # Only the one thread comes here, so that the model is loaded once.
        if self._vectors is None:
            self._vectors = _loaded()
        return _embedded(self._vectors, texts)


def _embedded(vectors: "WordVectors", texts: list[str]) -> list[list[float]]:
    return [vectors.of(text) for text in texts]


def _loaded() -> "WordVectors":
    # NumPy and the tokenizer take a tenth of a second that only processes which embed should pay.
    from services.embeddings.word_vectors import WordVectors  # noqa: PLC0415

    return WordVectors(MODEL_FILES / "wordllama")
