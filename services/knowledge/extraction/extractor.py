"""Owns the way from a document's bytes to its text, and which way is safe for which type."""

import asyncio
from typing import Final

from schema.result import Err, Result
from services.knowledge.extraction.documents import (
    ContentType,
    ExtractionLimits,
    ExtractionRefusal,
)
from services.knowledge.extraction.guarded_process import parse_in_process
from services.knowledge.extraction.plain_text import extract_plain_text

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
        """Return the document's text, or why it has none.

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
