"""Pages and their cursors."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.pages import InvalidCursorError, Page, decode_cursor, encode_cursor

NUMBERS = st.integers(min_value=-(2**31) + 1, max_value=2**31 - 1)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=200)
MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(st.tuples(TEXTS, NUMBERS, MOMENTS, st.uuids()))
def test_a_cursor_names_the_row_that_it_was_created_from(place: tuple[Any, ...]) -> None:
    types = [str, int, datetime, UUID]

    assert decode_cursor(encode_cursor("-title", place), "-title", types) == list(place)


@given(st.text(max_size=60))
def test_any_other_text_is_not_a_cursor(text: str) -> None:
    with pytest.raises(InvalidCursorError):
        decode_cursor(text, "createdAt", [UUID])


@pytest.mark.parametrize(
    "place",
    [(), (UUID(int=1), UUID(int=2)), ("x",), (None,), (1,), (True,), ([],), ({},), ("0" * 31,)],
    ids=str,
)
def test_a_cursor_of_another_shape_is_refused(place: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidCursorError):
        decode_cursor(encode_cursor("createdAt", place), "createdAt", [UUID])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a\x00b", str),
        ("x" * 251, str),
        (2**31, int),
        (2**60, int),
        (1.0, int),
        (1e300, float),
        (float("nan"), float),
        (True, int),
        ("1", int),
        ("2026-01-31T09:00:00", datetime),
        ("soon", datetime),
        ("0001-01-01T00:00:00+14:00", datetime),
        ("9999-12-31T23:59:59-14:00", datetime),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_the_column_is_rejected(value: object, kind: type) -> None:
    with pytest.raises(InvalidCursorError):
        decode_cursor(encode_cursor("x", (value,)), "x", [kind])


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidCursorError):
        decode_cursor("WyJ4IiwiXHVkODAwIl0", "x", [str])


def test_a_cursor_of_another_order_is_refused() -> None:
    cursor = encode_cursor("createdAt", (uuid4(),))

    with pytest.raises(InvalidCursorError):
        decode_cursor(cursor, "-createdAt", [UUID])


def test_a_page_keeps_its_cursor_when_its_items_are_turned_into_others() -> None:
    assert Page([1, 2], "next").map(str) == Page(["1", "2"], "next")
