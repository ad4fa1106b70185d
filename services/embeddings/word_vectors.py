"""The model in wordllama's wheel: its tokenizer, its tokens' vectors, and the mean of them.

Imported only where texts are embedded in this process: its packages are large.
"""

from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

DIMENSIONS: Final = 256


class WordVectors:
    """Embeds one text after the other; safe to use from several threads.

    Source: the wheel of wordllama 0.4; its own `embed` pads texts to the longest of their batch,
    which costs hundreds of megabytes for one long text among many.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(
            str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")
        )
        # Text that says "</s>" means these characters, not the end of a sequence.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        weights = load_file(folder / "weights" / "l2_supercat_256.safetensors")
        # Of 16 bits each. Copies in 32 would be 33 MB of memory in each process.
        self._vectors = weights["embedding.weight"]

    def of(self, text: str) -> list[float]:
        """Return the normalised mean of the vectors of the text's tokens.

        Shapes: 256 floats of length 1. A text without tokens, or whose tokens cancel out, gets a
        vector of equal numbers, which is close to nothing in particular.
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
