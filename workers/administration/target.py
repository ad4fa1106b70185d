"""Owns which API is administered, and as whom."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """What the options of `everturn admin` say; where they say nothing, `everturn chat`'s ways."""

    url: str | None
    data_dir: Path
    email: str | None
