"""The process that parses a document: hostile ones end it, and it never outlives who started it."""

import asyncio
import os
import signal
import sys

import psutil
import pytest

from schema.result import Err, Ok
from services.knowledge.extraction.documents import (
    ContentType,
    ExtractionLimits,
    ExtractionRefusal,
)
from services.knowledge.extraction.extractor import ExtractionProcessError, Extractor
from tests.fixtures import documents
from tests.running_everturn.waiting import eventually

TOO_COMPLEX = Err(ExtractionRefusal.TOO_COMPLEX)
SLOW_PAGE = b"<div>" * 400_000


def parsers() -> list[psutil.Process]:
    """Return the parser processes that this one has started and that run."""
    return [child for child in psutil.Process().children(recursive=True) if is_parser(child)]


def is_parser(process: psutil.Process) -> bool:
    try:
        runs = process.status() != psutil.STATUS_ZOMBIE
        return runs and any("parser_process" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


async def a_parser_runs() -> psutil.Process:
    async def look() -> list[psutil.Process]:
        return parsers()

    return (await eventually(look, bool))[0]


@pytest.mark.parametrize(
    ("content_type", "data", "text"),
    [
        (ContentType.PLAIN, "Grüße".encode(), "Grüße"),
        (ContentType.MARKDOWN, b"# Heading", "# Heading"),
        (ContentType.HTML, "<h1>Grüße</h1><p>\u200fשבת 👋".encode(), "Grüße\n\n\u200fשבת 👋"),
        (ContentType.PDF, documents.pdf("Hello", "again"), "Hello\n\nagain"),
    ],
)
async def test_the_text_of_every_document_type_is_extracted(
    content_type: ContentType, data: bytes, text: str
) -> None:
    assert Ok(text) == await Extractor().extract(content_type, data)


@pytest.mark.parametrize("content_type", ContentType)
async def test_a_document_of_nothing_is_empty(content_type: ContentType) -> None:
    assert Err(ExtractionRefusal.EMPTY) == await Extractor().extract(content_type, b" \n")


async def test_a_document_of_too_many_bytes_is_too_large() -> None:
    extractor = Extractor(ExtractionLimits(document_bytes=3))
    assert Err(ExtractionRefusal.TOO_LARGE) == await extractor.extract(ContentType.PDF, b"%PDF")


async def test_a_bomb_is_refused() -> None:
    bomb = documents.bomb(1_000_000_000, layers=2)
    assert await Extractor().extract(ContentType.PDF, bomb) == TOO_COMPLEX


async def test_a_document_that_takes_too_much_processor_time_is_refused() -> None:
    extractor = Extractor(ExtractionLimits(cpu_s=1, timeout_s=60))
    assert await extractor.extract(ContentType.HTML, SLOW_PAGE) == TOO_COMPLEX
    assert parsers() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space")
async def test_a_document_that_takes_too_much_memory_is_refused() -> None:
    extractor = Extractor(ExtractionLimits(memory_bytes=200_000_000))
    assert await extractor.extract(ContentType.HTML, b"<i>" * 3_000_000) == TOO_COMPLEX


async def test_a_document_that_takes_too_long_is_refused() -> None:
    extractor = Extractor(ExtractionLimits(timeout_s=0.01))
    assert await extractor.extract(ContentType.HTML, SLOW_PAGE) == TOO_COMPLEX
    assert parsers() == []


async def test_the_event_loop_keeps_running_while_a_document_is_parsed() -> None:
    extraction = asyncio.create_task(Extractor().extract(ContentType.HTML, SLOW_PAGE))
    process = await a_parser_runs()
    assert not extraction.done()
    process.kill()
    assert await extraction == TOO_COMPLEX


async def test_a_cancelled_extraction_leaves_no_process() -> None:
    extraction = asyncio.create_task(Extractor().extract(ContentType.HTML, SLOW_PAGE))
    await a_parser_runs()
    extraction.cancel()
    with pytest.raises(asyncio.CancelledError):
        await extraction
    assert parsers() == []


async def test_no_more_documents_are_parsed_at_once_than_may_be() -> None:
    extractor = Extractor(parallel_processes=1)
    pages = asyncio.gather(
        *(extractor.extract(ContentType.HTML, b"<p>%d" % number) for number in range(3))
    )
    seen: set[int] = set()

    async def look() -> bool:
        seen.add(len(parsers()))
        return pages.done()

    await eventually(look, bool)
    assert [Ok("0"), Ok("1"), Ok("2")] == await pages
    assert max(seen) == 1


async def test_a_terminated_process_does_not_reject_the_document() -> None:
    extraction = asyncio.create_task(Extractor().extract(ContentType.HTML, SLOW_PAGE))
    process = await a_parser_runs()
    process.send_signal(signal.SIGTERM)
    with pytest.raises(ExtractionProcessError, match="-15"):
        await extraction


@pytest.mark.skipif(sys.platform != "linux", reason="reads the environment of another process")
async def test_the_process_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a secret")
    extraction = asyncio.create_task(Extractor().extract(ContentType.HTML, SLOW_PAGE))
    process = await a_parser_runs()
    assert "ANTHROPIC_API_KEY" in os.environ
    assert "ANTHROPIC_API_KEY" not in process.environ()
    extraction.cancel()
    with pytest.raises(asyncio.CancelledError):
        await extraction
