"""Owns the folders in which servers live that run as processes: one for each, and private."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from services.mcp.errors import McpServerError

_PRIVATE: Final = 0o700


class ServerHomes:
    """Gives each server a folder that it keeps between its runs.

    Programs that install themselves when they start, as `npx` does, would else do so each time.
    """

    def __init__(self, base: Path | None = None) -> None:
        """Take where the folders are to be; the system's temporary folder if that is not said."""
        self._base = base or Path(tempfile.gettempdir(), f"everturn-mcp-{os.getuid()}")

    def of(self, name: str) -> Path:
        """Return a server's folder. Errors: McpServerError where it can't be had for oneself."""
        try:
            _make_private(self._base)
            home = self._base / name
            _make_private(home)
        except OSError as error:
            raise McpServerError(f"It can't have a folder of its own: {error.strerror}.") from error
        return home


def _make_private(folder: Path) -> None:
    """Make a folder, or see that the one that is there is ours alone and no link elsewhere."""
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(0, "somebody else has made it")
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(_PRIVATE)
