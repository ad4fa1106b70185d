"""Finds what a file is by its content, in a process that a hostile file can't outlive.

`inspection_process.py` is that process, with the limits of processes that parse documents. The
name and the declared type of a file only decide whether it is what its sender thinks.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from pydantic import TypeAdapter

from schema.files import IMAGE_TYPES, PDF_TYPE
from schema.result import Err, Ok, Result
from services.files.inspection import FileLimits, FileRefusal, Inspection
from services.files.inspection_process import inspected, needs_parser
from services.knowledge.extraction.extractor import run_parser

_MODULE: Final = "services.files.inspection_process"
_AT_A_TIME: Final = 2

_SMALL: Final = 64 * 1024
"""A text of this size is read in a thread, in time in proportion to its length."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that was found fit, and its rendition for models, if it has one."""

    found: Inspection
    rendition: bytes


class Inspector:
    """Inspects files, two at a time; the others wait."""

    def __init__(self, limits: FileLimits) -> None:
        self.limits = limits
        self._processes = asyncio.Semaphore(_AT_A_TIME)

    async def inspect(
        self, file: int, *, name: str = "", declared: str = "", charset: str | None = None
    ) -> Result[Inspected, FileRefusal]:
        """Return what the open file `file` is; its position is moved.

        Errors: ExtractionProcessError and OSError, where another attempt may succeed.
        """
        if os.fstat(file).st_size <= _SMALL:
            data = os.pread(file, _SMALL, 0)
            if not needs_parser(data):
                return self._judged(
                    await asyncio.to_thread(inspected, data, self.limits, charset=charset or ""),
                    name=name,
                    declared=declared,
                )
        arguments = (TypeAdapter(FileLimits).dump_json(self.limits).decode(), charset or "")
        async with self._processes:
            os.lseek(file, 0, os.SEEK_SET)
            output = await run_parser(
                _MODULE, *arguments, source=file, timeout_s=self.limits.timeout_s
            )
        return self._judged(output, name=name, declared=declared)

    def _judged(
        self, output: bytes | None, *, name: str, declared: str
    ) -> Result[Inspected, FileRefusal]:
        if output is None:
            return Err(FileRefusal.TOO_COMPLEX)
        head, _, rendition = output.partition(b"\n")
        found = Inspection.model_validate_json(head)
        if found.refusal is not None:
            return Err(found.refusal)
        if _is_something_else(found.content_type, declared=declared, name=name):
            return Err(FileRefusal.NOT_ITS_TYPE)
        return Ok(Inspected(found, rendition))


_KINDS: Final = {
    **dict.fromkeys((".png", ".apng", ".jpg", ".jpeg", ".jfif", ".gif", ".webp"), "image"),
    **dict.fromkeys((".bmp", ".tif", ".tiff", ".heic", ".avif", ".ico"), "image"),
    ".pdf": "pdf",
}


def _is_something_else(found: str, *, declared: str, name: str) -> bool:
    """Whether a file claims to be of another kind: text named as an image, an image named as a PDF.

    One kind of picture in place of another harms nobody: browsers mix them up.
    """
    kind = _kind_of(found)
    claimed = _kind_of(declared) or _KINDS.get(PurePath(name).suffix.lower())
    return claimed is not None and claimed != kind


def _kind_of(content_type: str) -> str | None:
    if content_type in IMAGE_TYPES or content_type.startswith("image/"):
        return "image"
    if content_type == PDF_TYPE:
        return "pdf"
    return "text" if content_type.startswith("text/") else None
