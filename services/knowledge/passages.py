"""Splits a text into passages, which are embedded, found and cited as sources.

Boundaries are those of the splitter library: headings, paragraphs, sentences, words, graphemes.
Does not extract or store anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from schema.result import Err, Ok, Result
from services.knowledge.extraction.documents import ContentType, ExtractionRefusal

# For every passage of a long line the library looks at all that is left of it: 100,000 characters
# of Chinese took it 2.4 s at once, and 0.25 s in windows.
_WINDOW_PASSAGES: Final = 8


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a text: `text == source[start:end]`, in characters."""

    position: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageSizes:
    """How long passages are, and how many there may be.

    Units: characters. A passage of `enough` ends at the next good boundary, and none is longer
    than `longest`; up to `overlap` of them, fewer than `enough`, are repeated in the next one.
    """

    enough: int = 600
    longest: int = 1200
    overlap: int = 100
    passages: int = 10_000

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.enough <= self.longest:
            raise ValueError("Sizes of passages must be 0 <= overlap < enough <= longest.")


class _Splitter(Protocol):
    def chunk_indices(self, text: str, /) -> list[tuple[int, str]]: ...


def split(
    text: str, content_type: ContentType, sizes: PassageSizes | None = None
) -> Result[list[Passage], ExtractionRefusal]:
    """Return the passages of `text` in their order; together they hold all that can be read.

    Spaces around a passage are left out, and so is a passage of spaces alone. Takes up to
    three seconds for each million characters (Chinese), so call it in a thread.

    Errors: TOO_LARGE for more passages than allowed; EMPTY if there is none.
    Idempotency: pure; the same text gives the same passages at the same positions.
    """
    sizes = sizes or PassageSizes()
    passages: list[Passage] = []
    for start, chunk in _chunks(text, _splitter(content_type, sizes), sizes):
        passage = _trimmed(start, chunk, position=len(passages))
        if passage is None or _repeats(passage, passages):
            continue
        if len(passages) == sizes.passages:
            return Err(ExtractionRefusal.TOO_LARGE)
        passages.append(passage)
    return Ok(passages) if passages else Err(ExtractionRefusal.EMPTY)


def _splitter(content_type: ContentType, sizes: PassageSizes) -> _Splitter:
    # 3 MB of code, for workers that ingest documents.
    from semantic_text_splitter import MarkdownSplitter, TextSplitter  # noqa: PLC0415

    of_type = MarkdownSplitter if content_type == ContentType.MARKDOWN else TextSplitter
    return of_type((sizes.enough, sizes.longest), overlap=sizes.overlap, trim=False)


def _chunks(text: str, splitter: _Splitter, sizes: PassageSizes) -> Iterator[tuple[int, str]]:
    """Split window by window; a window's last chunk may be cut short, so the next begins there."""
    length = _WINDOW_PASSAGES * sizes.longest
    begin = 0
    while begin < len(text):
        chunks = splitter.chunk_indices(text[begin : begin + length])
        is_last = begin + length >= len(text)
        for offset, chunk in chunks if is_last else chunks[:-1]:
            yield begin + offset, chunk
        if is_last:
            return
        begin += chunks[-1][0]


def _trimmed(start: int, chunk: str, *, position: int) -> Passage | None:
    text = chunk.strip()
    start += len(chunk) - len(chunk.lstrip())
    return Passage(position, start, start + len(text), text) if text else None


def _repeats(passage: Passage, passages: list[Passage]) -> bool:
    """Return whether the passage before holds all of this one, as where spaces were left out."""
    return bool(passages) and passage.end <= passages[-1].end
