"""Images that tools return, kept as files of the user: a result only refers to them.

What can't be kept is left out of the result with a note: the tool has run, and is not run again.
"""

import asyncio
import tempfile
from base64 import b64decode
from collections.abc import Mapping
from typing import IO, Any, Final

import structlog

from schema.actors import Actor
from schema.files import File, FileOrigin
from schema.ids import FileId
from schema.result import Err, Ok, Result
from services.files.inspection import FileRefusal
from services.files.service import FileService, Refusal, StorageFull, Upload
from services.files.store import FilesUnavailableError
from services.knowledge.extraction.extractor import ExtractionProcessError
from services.resources import LimitReached
from services.tools.definition import ToolOutcome

_log = structlog.get_logger(__name__)

_FULL: Final = "(Image omitted: your storage of files is full.)"
_REFUSED: Final = "(Image omitted: it is broken or too large.)"
_UNAVAILABLE: Final = "(Image omitted: it can't be stored right now.)"


class ToolImages:
    """Keeps the images of results. Errors: DatabaseUnavailableError."""

    def __init__(self, files: FileService) -> None:
        self._files = files

    async def keep(
        self, actor: Actor, outcome: ToolOutcome, *, tool: str
    ) -> tuple[ToolOutcome, Mapping[int, FileId]]:
        """Return the outcome with a note in place of each image, and the files by their places.

        Idempotency: what is kept twice is swept once no result refers to it.
        """
        kept: dict[int, FileId] = {}
        blocks = list(outcome.blocks)
        for position, block in enumerate(blocks):
            if block.get("type") != "image":
                continue
            note = await self._keep(actor, block, name=f"{tool} {len(kept) + 1}")
            if isinstance(note, File):
                kept[position] = note.id
                note = f"(Image: {note.content_type}, {note.size:,} bytes)"
            blocks[position] = {"type": "text", "text": note}
        return outcome.model_copy(update={"blocks": tuple(blocks)}), kept

    async def _keep(self, actor: Actor, block: Mapping[str, Any], *, name: str) -> File | str:
        """Return the file, or what stands in the result instead."""
        file = await asyncio.to_thread(_written, block["source"]["data"])
        try:
            upload = Upload(file.fileno(), name)
            result: Result[File, Refusal] = await self._files.create(
                actor, upload, key=None, origin=FileOrigin.TOOL
            )
        except (FilesUnavailableError, ExtractionProcessError, OSError):
            _log.exception("tool_image_not_kept")
            return _UNAVAILABLE
        finally:
            file.close()
        match result:
            case Ok(stored):
                return stored
            case Err(LimitReached() | StorageFull()):
                return _FULL
            case Err(FileRefusal() as refusal):
                _log.info("tool_image_refused", refusal=refusal.value)
        return _REFUSED


def _written(data: str) -> IO[bytes]:
    # The caller closes it.
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- see above
    file.write(b64decode(data))
    file.flush()
    return file
