"""Passages: they hold all of a text, none is too long, and none is empty."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.result import Err, Ok
from services.knowledge.extraction.documents import ContentType, ExtractionRefusal
from services.knowledge.passages import Passage, PassageSizes, split

bounded = settings(database=None, deadline=None, max_examples=100)
SMALL = PassageSizes(enough=20, longest=40, overlap=5)
FAMILY = "👩\u200d👩\u200d👧"

texts = st.lists(
    st.sampled_from(
        [
            *("a", "word ", "One sentence. ", "\n", "\n\n", "# Heading\n", "- item\n", "```\n"),
            *(
                "漢字",
                "שבת ",
                "\u200f",
                FAMILY,
                "🇩🇪",
                "e\u0301",
                "\u200d",
                "|a|b|\n",
                "> ",
                "[",
                "*",
                "  ",
            ),
        ]
    ),
    max_size=200,
).map("".join)


def passages_of(
    text: str, content_type: ContentType = ContentType.PLAIN, sizes: PassageSizes = SMALL
) -> list[Passage]:
    result = split(text, content_type, sizes)
    return result.value if isinstance(result, Ok) else []


@bounded
@given(texts, st.sampled_from(ContentType))
def test_passages_are_parts_of_the_text_in_their_order(text: str, of_type: ContentType) -> None:
    passages = passages_of(text, of_type)
    assert list(range(len(passages))) == [passage.position for passage in passages]
    assert sorted({passage.start for passage in passages}) == [p.start for p in passages]
    for passage in passages:
        assert passage.text == text[passage.start : passage.end]
        assert passage.text.strip()
        assert len(passage.text) <= SMALL.longest


@bounded
@given(texts, st.sampled_from(ContentType))
def test_together_they_hold_all_that_can_be_read(text: str, of_type: ContentType) -> None:
    end = 0
    for passage in passages_of(text, of_type):
        assert not text[end : passage.start].strip()
        end = max(end, passage.end)
    assert not text[end:].strip()


@bounded
@given(texts, st.sampled_from(ContentType))
def test_the_same_text_gives_the_same_passages(text: str, of_type: ContentType) -> None:
    assert split(text, of_type, SMALL) == split(text, of_type, SMALL)


@pytest.mark.parametrize("unit", ["a", "漢", "ש", FAMILY, "🇩🇪", "e\u0301"])
def test_a_long_line_without_spaces_is_cut_between_graphemes(unit: str) -> None:
    text = unit * (20_000 // len(unit))
    passages = passages_of(text, sizes=PassageSizes())
    assert len(passages) > 15
    for passage in passages:
        assert passage.start % len(unit) == 0
        assert passage.end % len(unit) == 0


def test_neighbours_overlap_by_a_tenth_or_less() -> None:
    passages = passages_of("word " * 2_000, sizes=PassageSizes())
    shared = [one.end - following.start for one, following in pairwise(passages)]
    assert all(0 < characters <= 100 for characters in shared)


def test_markdown_is_cut_at_its_headings() -> None:
    section = "# Heading\n\n" + "A sentence of some words. " * 30 + "\n\n"
    passages = passages_of(section * 4, ContentType.MARKDOWN, PassageSizes())
    assert len(passages) == 4
    assert all(passage.text.startswith("# Heading") for passage in passages)


def test_a_short_text_is_one_passage() -> None:
    assert Ok([Passage(0, 2, 7, "Hello")]) == split("\n Hello \n", ContentType.PLAIN)


@pytest.mark.parametrize("text", ["", " \n\t" * 1_000])
def test_a_text_of_spaces_has_no_passage(text: str) -> None:
    assert Err(ExtractionRefusal.EMPTY) == split(text, ContentType.MARKDOWN)


def test_more_passages_than_may_be_are_too_large() -> None:
    sizes = PassageSizes(enough=20, longest=40, overlap=5, passages=3)
    assert Err(ExtractionRefusal.TOO_LARGE) == split("word " * 100, ContentType.PLAIN, sizes)


@pytest.mark.parametrize(
    ("enough", "longest", "overlap"), [(50, 40, 5), (20, 40, 20), (20, 40, -1)]
)
def test_inconsistent_sizes_are_rejected(enough: int, longest: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap < enough"):
        PassageSizes(enough=enough, longest=longest, overlap=overlap)
