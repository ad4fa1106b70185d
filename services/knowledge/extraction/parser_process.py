"""The process that parses one document: its limits, and its exchange with its parent.

Run as `python -m services.knowledge.extraction.parser_process CONTENT_TYPE LIMITS`, the limits as
JSON; the document comes on standard input, and one `Answer` leaves on standard output. A document
that exceeds a limit ends it by a signal, which `extractor.py` understands.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

from pydantic import TypeAdapter

from schema.result import Err, Result
from services.knowledge.extraction.documents import (
    Answer,
    ContentType,
    ExtractionLimits,
    ExtractionRefusal,
)

_NICENESS: Final = 10

_Parser: TypeAlias = Callable[[bytes, ExtractionLimits], Result[str, ExtractionRefusal]]


def _parser_of(content_type: ContentType) -> _Parser:
    """Import only the parser that is needed: each document has a process of its own."""
    if content_type is ContentType.PDF:
        from services.knowledge.extraction.pdf_text import extract_pdf  # noqa: PLC0415 -- see above

        return extract_pdf
    from services.knowledge.extraction.html_text import extract_html  # noqa: PLC0415 -- see above

    return extract_html


def main() -> None:
    """Parse the document on standard input and write the answer."""
    content_type, limits_json = sys.argv[1:]
    limits = TypeAdapter(ExtractionLimits).validate_json(limits_json)
    restrict_this_process(limits)
    data = sys.stdin.buffer.read()
    sys.stdout.buffer.write(answer(ContentType(content_type), data, limits))


def answer(content_type: ContentType, data: bytes, limits: ExtractionLimits) -> bytes:
    """Return the bytes for standard output."""
    try:
        result = _parser_of(content_type)(data, limits)
    except MemoryError:
        result = Err(ExtractionRefusal.TOO_COMPLEX)
    return Answer.of(result).model_dump_json(exclude_none=True).encode()


def restrict_this_process(limits: ExtractionLimits, *, niceness: int = _NICENESS) -> None:
    """Limit what this process may ever use; a second call can only lower the limits.

    The alarm ends it when its parent is gone and can't.
    """
    # A page of a kilobyte can take a minute of processor time: what users wait for goes first.
    os.nice(niceness)
    # A terminal's Ctrl-C is for the parent, which ends this process on time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, limits.timeout_s)
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: limits.cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_AS: limits.memory_bytes,
    }
    for kind, bound in bounds.items():
        # macOS takes no bound of the address space.
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (bound, bound))


if __name__ == "__main__":
    main()
