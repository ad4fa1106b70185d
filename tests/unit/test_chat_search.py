"""The words of a search, the ways in which they may be written, and where they stand."""

import pytest

from services.chat_search import NO_WORDS, words_of


@pytest.mark.parametrize(
    ("query", "words", "ways"),
    [
        ("rome", 1, 2),
        ("rome  rome\u3000pizza", 2, 2),
        ("東京", 1, 1),
        ("a b c d e f g h", 6, 2),
        ("タワー", 1, 2),
        ("caf\u00e9", 1, 3),
    ],
)
def test_a_search_has_a_form_that_its_statement_depends_on(
    query: str, *, words: int, ways: int
) -> None:
    searched = words_of(query)

    assert searched.form == (words, ways)
    assert len(searched.parameters) == words * ways


def test_the_longest_of_many_words_are_looked_for() -> None:
    searched = words_of("a bb ccc dddd eeeee ffffff ggggggg")

    assert sorted(searched.parameters[f"word_{place}_0"] for place in range(6)) == sorted(
        ["bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg"]
    )


def test_nothing_is_searched_without_words() -> None:
    assert (NO_WORDS.form, dict(NO_WORDS.parameters)) == (None, {})
    assert words_of(" \u3000").form is None


def test_marks_count_code_points_and_prefer_the_longer_word() -> None:
    (hit,) = words_of("<b> rom rome").hits("👩\u200d👩 <b>Rome</b>", None)

    assert [hit.excerpt[mark.start : mark.end] for mark in hit.marks] == ["<b>", "Rome"]


def test_a_title_with_some_of_the_words_is_no_hit() -> None:
    assert words_of("rome pizza").hits("Rome", None) == []
