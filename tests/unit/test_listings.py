"""Queries that are put together once: their forms, their parameters, and rows of theirs."""

from typing import Any

import asyncpg
import pytest
from sqlalchemy import Uuid, bindparam
from sqlmodel import SQLModel, col, select

from schema import tables
from schema.pages import InvalidCursorError, PageRequest, encode_cursor
from schema.tables import ChatRow, DocumentVersionRow
from services.database.queries import (
    AttributeRow,
    CompiledQuery,
    Listing,
    Order,
    contains_searched,
    equals,
)
from services.knowledge.rows import light

TABLES = [table for table in vars(tables).values() if isinstance(table, type)]
ROWS = [table for table in TABLES if issubclass(table, SQLModel) and hasattr(table, "__table__")]
BY_TITLE = Order("title", (col(ChatRow.title), col(ChatRow.id)))
ARCHIVED = col(ChatRow.archived_at).is_not(None)


class Recorded:
    """Takes the place of a connection: no rows, but what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[object, ...]]] = []

    async def fetch(self, sql: str, *arguments: object, record_class: type) -> list[object]:
        """Return nothing, and remember the question."""
        assert record_class is AttributeRow
        self.asked.append((" ".join(sql.split()), arguments))
        return []


@pytest.fixture
def connection() -> Any:  # noqa: ANN401 -- in the place of a connection
    return Recorded()


def chats() -> Listing[ChatRow]:
    return Listing(
        select(ChatRow).where(col(ChatRow.user_id) == bindparam("owner_id", type_=Uuid)),
        {
            **equals(col(ChatRow.version)),
            "archived": {True: ARCHIVED, False: ~ARCHIVED, None: col(ChatRow.title) != "hidden"},
            "search": contains_searched(ChatRow.title),
        },
    )


def where(asked: tuple[str, tuple[object, ...]]) -> str:
    return asked[0].partition(" WHERE ")[2].partition(" ORDER BY ")[0]


def test_there_are_tables_to_look_at() -> None:
    assert len(ROWS) >= 25


@pytest.mark.parametrize("table", ROWS, ids=lambda table: table.__name__)
def test_no_column_hides_behind_what_a_record_can_do(table: Any) -> None:  # noqa: ANN401 -- a table
    assert [c.name for c in table.__table__.columns if hasattr(asyncpg.Record, c.name)] == []


@pytest.mark.parametrize(
    ("chosen", "condition", "arguments"),
    [
        ({}, "chats.title != $2::VARCHAR", ("me", "hidden", 4)),
        ({"archived": True}, "chats.archived_at IS NOT NULL", ("me", 4)),
        ({"archived": False, "version": None}, "chats.archived_at IS NULL", ("me", 4)),
        (
            {"archived": True, "version": 7},
            "chats.version = $2::INTEGER AND chats.archived_at IS NOT NULL",
            ("me", 7, 4),
        ),
    ],
    ids=str,
)
async def test_filters_select_the_conditions(
    connection: Any,  # noqa: ANN401 -- in the place of a connection
    chosen: dict[str, object],
    condition: str,
    arguments: tuple[object, ...],
) -> None:
    page = await chats().read(connection, PageRequest(3), BY_TITLE, {**chosen, "owner_id": "me"})

    (asked,) = connection.asked
    assert where(asked) == f"chats.user_id = $1::UUID AND {condition}"
    assert (asked[1], page.items, page.next_cursor) == (arguments, [], None)


async def test_a_form_is_put_together_once(connection: Any) -> None:  # noqa: ANN401 -- as above
    listing = chats()
    for text in ("one", "two"):
        await listing.read(connection, PageRequest(3), BY_TITLE, {"owner_id": "me", "search": text})
    await listing.read(connection, PageRequest(9), BY_TITLE, {"owner_id": "you"})

    first, second, third = connection.asked
    assert first[0] == second[0] != third[0]
    assert ("one" in first[1], "two" in second[1]) == (True, True)
    assert len(listing._forms) == 2


async def test_a_cursor_of_another_order_asks_nothing(connection: Any) -> None:  # noqa: ANN401 -- as above
    cursor = encode_cursor("chats -title", ("A", "x"))

    with pytest.raises(InvalidCursorError):
        await chats().read(connection, PageRequest(3, cursor), BY_TITLE, {"owner_id": "me"})

    assert connection.asked == []


async def test_a_missing_parameter_is_an_error(connection: Any) -> None:  # noqa: ANN401 -- as above
    with pytest.raises(KeyError):
        await CompiledQuery(
            select(ChatRow).where(col(ChatRow.id) == bindparam("chat_id", type_=Uuid))
        ).all(connection)


async def test_deferred_columns_are_not_selected(connection: Any) -> None:  # noqa: ANN401 -- as above
    await CompiledQuery(light()).all(connection)

    ((sql, _),) = connection.asked
    columns = sql.partition(" FROM ")[0]
    left = {"source", "content"}
    assert {c.name for c in DocumentVersionRow.__table__.columns} >= left  # type: ignore[attr-defined]
    assert [name for name in left if f".{name}," in f"{columns},"] == []
