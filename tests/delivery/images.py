"""References to images: pinned by digest, or by an exact version."""

import re
from typing import Final

_DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}$")
_VERSION: Final = re.compile(r":v?\d+\.\d+\.\d+[\w.+-]*$")


def is_pinned(image: str) -> bool:
    """Whether an image stays the same: a digest, or at least an exact version."""
    return bool(_DIGEST.search(image) or _VERSION.search(image))


def is_pinned_by_digest(image: str) -> bool:
    """Whether an image can't change."""
    return bool(_DIGEST.search(image))
