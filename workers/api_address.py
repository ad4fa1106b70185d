"""The address of the API that a command on this machine talks to."""

import json
from pathlib import Path
from typing import Final

_DEFAULT_URL: Final = "http://127.0.0.1:8000"


def api_origin(url: str | None, data_dir: Path) -> str:
    """Return the given URL, or that of `everturn dev`, or the default."""
    origin = (url or _written_down(data_dir) or _DEFAULT_URL).rstrip("/")
    return origin if "://" in origin else f"http://{origin}"


def _written_down(data_dir: Path) -> str | None:
    """Return the URL in `addresses.json`, if a development stack is running."""
    try:
        addresses = json.loads((data_dir / "addresses.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    origin = addresses.get("api") if isinstance(addresses, dict) else None
    return origin if isinstance(origin, str) else None
