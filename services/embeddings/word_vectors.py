"""Owns the model in wordllama: its tokens, their vectors, and the mean of them.

Imported only where texts are embedded in this process: wordllama is an optional package, and
importing it takes a few tenths of a second.
"""

from pathlib import Path
from typing import Final

import numpy as np
import wordllama  # type: ignore[import-untyped]  # it has no types

DIMENSIONS: Final = 256


class WordVectors:
    """Embeds one text after the other; safe to use from several threads.

    wordllama's own `embed` is not used: it fills texts up to the longest of their batch, which
    costs hundreds of megabytes for one long text among many.
    """

    def __init__(self) -> None:
        model = wordllama.WordLlama.load(
            cache_dir=Path(wordllama.__file__).parent, dim=DIMENSIONS, disable_download=True
        )
        self._tokenizer = model.tokenizer
        # A text that says "</s>" means these characters, not the end of a sequence.
        self._tokenizer.encode_special_tokens = True
        self._vectors = model.embedding

    def of(self, text: str) -> list[float]:
        """Return the normalised mean of the vectors of the text's tokens.

        Shapes: 256 floats of length 1. A text without tokens, or whose tokens cancel out, gets
        the same number everywhere: near to nothing in particular.
        """
        # `encode` would hold the interpreter's lock until it is done; `encode_batch` does not.
        [encoding] = self._tokenizer.encode_batch([text], add_special_tokens=False)
        counts = np.bincount(np.asarray(encoding.ids, dtype=np.int64))
        used = np.flatnonzero(counts)
        total = counts[used].astype(np.float64) @ self._vectors[used].astype(np.float64)
        length = float(np.linalg.norm(total))
        if length == 0.0:
            total, length = np.ones(DIMENSIONS), float(np.sqrt(DIMENSIONS))
        vector: list[float] = (total / length).tolist()
        return vector
