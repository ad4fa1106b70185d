"""The model in wordllama's wheel: its tokenizer, its tokens' vectors, and the mean of them.

Imported only where texts are embedded in this process: its packages are large.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
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
        self._vectors = _mapped(
            folder / "weights" / "l2_supercat_256.safetensors", "embedding.weight"
        )

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


def _mapped(path: Path, name: str) -> "np.memmap[Any, np.dtype[np.float16]]":
    """Return a tensor of a file in the safetensors format, which stays in the file.

    All processes of a machine share its pages; copies would be 16 MB of memory in each.
    Source: https://github.com/huggingface/safetensors#format
    """
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        tensor = json.loads(file.read(header_bytes))[name]
    if tensor["dtype"] != "F16":
        raise ValueError(f"{name} is of type {tensor['dtype']}, not F16")
    offset = 8 + header_bytes + tensor["data_offsets"][0]
    return np.memmap(path, np.float16, mode="r", offset=offset, shape=tuple(tensor["shape"]))
