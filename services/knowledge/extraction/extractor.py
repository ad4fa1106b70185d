"""Extracts a document's text: HTML and PDF in a process that a hostile document can't outlive.

ExtractionProcessError    the process failed for a reason that is not the document's
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

from pydantic import TypeAdapter

from schema.result import Err, Result
from services.knowledge.extraction.documents import (
    Answer,
    ContentType,
    ExtractionLimits,
    ExtractionRefusal,
)
from services.knowledge.extraction.plain_text import extract_plain_text
from services.shielding import shielded

_MODULE: Final = "services.knowledge.extraction.parser_process"
# What an interpreter needs to start. The rest of the environment holds keys and passwords, which
# a process that reads untrusted documents must not have.
_INHERITED: Final = (
    "DYLD_LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "TMPDIR",
)
# How a process ends at one of its limits, or where a library broke on what it read. The hard
# limit of processor time is a SIGKILL, as is the kernel's signal when memory runs out.
_TOO_MUCH: Final = frozenset(
    (
        *(-signal.SIGABRT, -signal.SIGALRM, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL),
        *(-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGXCPU, -signal.SIGXFSZ),
    )
)


class ExtractionProcessError(Exception):
    """The process that parses a document failed; another attempt may succeed."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"The process that parses a document ended with exit code {exit_code}.")


async def parse_in_process(
    content_type: ContentType, data: bytes, limits: ExtractionLimits
) -> Result[str, ExtractionRefusal]:
    """Return the text that the parser extracts from `data`; TOO_COMPLEX at any limit.

    Errors: as of `run_parser`.
    """
    arguments = (content_type, TypeAdapter(ExtractionLimits).dump_json(limits).decode())
    output = await run_parser(_MODULE, *arguments, source=data, timeout_s=limits.timeout_s)
    if output is None:
        return Err(ExtractionRefusal.TOO_COMPLEX)
    return Answer.model_validate_json(output).result()


async def run_parser(
    module: str, *arguments: str, source: bytes | int, timeout_s: float
) -> bytes | None:
    """Return the output of a module that parses `source`, data or a file; None at any limit.

    When this call ends, cancelled or not, its process has ended.

    Errors: ExtractionProcessError; OSError where no process can be started.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, *arguments),
        env=_environment(),
        stdin=source if isinstance(source, int) else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Its warnings quote the document.
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate(None if isinstance(source, int) else source)
    except TimeoutError:
        return None
    finally:
        await shielded(_end(process))
    exit_code = process.returncode or 0
    if exit_code in _TOO_MUCH:
        return None
    if exit_code:
        raise ExtractionProcessError(exit_code)
    return output


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def _environment() -> Mapping[str, str]:
    """Return an environment in which the process imports what this one does."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


_PARALLEL_PROCESSES: Final = 2


class Extractor:
    """Extracts the texts of documents, a bounded number at a time, never on the event loop."""

    def __init__(
        self,
        limits: ExtractionLimits | None = None,
        *,
        parallel_processes: int = _PARALLEL_PROCESSES,
    ) -> None:
        self._limits = limits or ExtractionLimits()
        self._processes = asyncio.Semaphore(parallel_processes)

    async def extract(
        self, content_type: ContentType, data: bytes
    ) -> Result[str, ExtractionRefusal]:
        """Return the document's text, or why there is none.

        Errors: ExtractionProcessError and OSError, where another attempt may succeed.
        Idempotency: pure; the same bytes give the same text.
        """
        if len(data) > self._limits.document_bytes:
            return Err(ExtractionRefusal.TOO_LARGE)
        if not data.strip():
            return Err(ExtractionRefusal.EMPTY)
        match content_type:
            case ContentType.PLAIN | ContentType.MARKDOWN:
                # Reading text takes time in proportion to its length, whatever stands in it.
                max_chars = self._limits.text_chars
                return await asyncio.to_thread(extract_plain_text, data, max_chars=max_chars)
            case ContentType.HTML | ContentType.PDF:
                async with self._processes:
                    return await parse_in_process(content_type, data, self._limits)
