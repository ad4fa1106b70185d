"""Pages and their cursors."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.pages import Page, PageRequest, decode_cursor, encode_cursor


@given(st.lists(st.uuids(), min_size=1, max_size=3).map(tuple))
def test_a_cursor_names_the_row_that_it_was_made_from(key: tuple[UUID, ...]) -> None:
    assert decode_cursor(encode_cursor(key), parts=len(key)) == key


@given(st.text(max_size=60))
def test_any_other_text_is_no_cursor_or_a_harmless_one(text: str) -> None:
    decoded = decode_cursor(text, parts=1)

    assert decoded is None or len(decoded) == 1


@pytest.mark.parametrize("parts", [1, 3])
def test_a_cursor_of_another_list_is_none(parts: int) -> None:
    assert decode_cursor(encode_cursor((uuid4(), uuid4())), parts=parts) is None


def test_one_row_more_than_the_limit_says_that_there_is_a_next_page() -> None:
    rows = [uuid4() for _ in range(3)]

    page = Page.of(rows, PageRequest(limit=2), key=lambda row: (row,))

    assert page == Page(rows[:2], encode_cursor((rows[1],)))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_more_rows_than_the_limit_are_the_last_page(count: int) -> None:
    rows = [uuid4() for _ in range(count)]

    assert Page.of(rows, PageRequest(limit=2), key=lambda row: (row,)) == Page(rows, None)
