"""Owns parsing a document in a process of its own, which a hostile one can't outgrow or outlive.

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
    ContentType,
    ExtractionLimits,
    ExtractionRefusal,
)
from services.knowledge.extraction.parser_answers import Answer
from services.shielding import shielded

_MODULE: Final = "services.knowledge.extraction.parser_process"
# What an interpreter needs in order to start. The rest of the environment holds keys and
# passwords, which are no business of a process that reads what strangers wrote.
_INHERITED: Final = (
    "DYLD_LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "SYSTEMROOT",
    "TMPDIR",
)
# How a process ends at one of its limits, or where a library broke on what it read. The hard
# limit of processor time is a SIGKILL, as is the kernel's word when memory runs out.
_FATAL: Final = (
    *("SIGABRT", "SIGALRM", "SIGBUS", "SIGFPE", "SIGILL"),
    *("SIGKILL", "SIGSEGV", "SIGXCPU", "SIGXFSZ"),
)
_TOO_MUCH: Final = frozenset(
    -getattr(signal, name)
    for name in _FATAL
    if hasattr(signal, name)  # Windows has few of them
)


class ExtractionProcessError(Exception):
    """The process that parses a document failed; another attempt may succeed."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"The process that parses a document ended with exit code {exit_code}.")


async def parse_in_process(
    content_type: ContentType, data: bytes, limits: ExtractionLimits
) -> Result[str, ExtractionRefusal]:
    """Return what the parser of `content_type` makes of `data`; TOO_COMPLEX at any limit.

    However this call ends, cancelled or not, its process has ended before.

    Errors: ExtractionProcessError; OSError where no process can be started.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _MODULE),
        *(content_type, TypeAdapter(ExtractionLimits).dump_json(limits).decode()),
        env=_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Its warnings quote the document.
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(limits.timeout_s):
            output, _ = await process.communicate(data)
    except TimeoutError:
        return Err(ExtractionRefusal.TOO_COMPLEX)
    finally:
        await shielded(_end(process))
    return _result(process.returncode or 0, output)


def _result(exit_code: int, output: bytes) -> Result[str, ExtractionRefusal]:
    if exit_code in _TOO_MUCH:
        return Err(ExtractionRefusal.TOO_COMPLEX)
    if exit_code:
        raise ExtractionProcessError(exit_code)
    return Answer.model_validate_json(output).result()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def _environment() -> Mapping[str, str]:
    """Return an environment in which the process imports what this one does."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
