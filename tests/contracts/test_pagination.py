"""Lists: bounds, cursors, and that new rows move nothing."""

from uuid import UUID, uuid4

import httpx
import pytest

from schema.pages import encode_cursor
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


async def page(
    member: ApiUser, path: str, *, limit: int, cursor: str | None = None
) -> tuple[list[str], str | None]:
    """Return the ids of a page, and the cursor of the next."""
    params: dict[str, str | int] = {"limit": limit}
    if cursor is not None:
        params["cursor"] = cursor
    response = await member.request("GET", path, params=params)
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body["meta"]) == {"requestId", "nextCursor"}
    return [row["id"] for row in body["data"]], body["meta"]["nextCursor"]


async def test_chats_come_newest_first_page_after_page(member: ApiUser) -> None:
    chats = [await member.create_chat() for _ in range(5)]

    first, cursor = await page(member, "/chats", limit=2)
    second, cursor_2 = await page(member, "/chats", limit=2, cursor=cursor)
    third, end = await page(member, "/chats", limit=2, cursor=cursor_2)

    assert first + second + third == chats[::-1]
    assert end is None


async def test_a_full_last_page_has_no_next(member: ApiUser) -> None:
    chats = [await member.create_chat() for _ in range(2)]

    assert await page(member, "/chats", limit=2) == (chats[::-1], None)


async def test_an_empty_list_is_a_page(member: ApiUser) -> None:
    assert await page(member, "/chats", limit=1) == ([], None)


async def test_rows_added_between_pages_do_not_shift_them(member: ApiUser) -> None:
    chats = [await member.create_chat() for _ in range(4)]
    first, cursor = await page(member, "/chats", limit=2)

    await member.create_chat()
    second, end = await page(member, "/chats", limit=2, cursor=cursor)

    assert (first + second, end) == (chats[::-1], None)


async def test_messages_come_oldest_first_and_new_ones_at_the_end(
    member: ApiUser, stack: Stack
) -> None:
    chat = await member.create_chat()
    path = f"/chats/{chat}/messages"
    for _ in range(2):
        question = unique()
        stack.model.add(Script(match=question, text="Yes."))
        await member.ask(chat, question)
    first, cursor = await page(member, path, limit=3)
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    await member.ask(chat, question)

    second, end = await page(member, path, limit=100, cursor=cursor)

    everything = [message["id"] for message in await member.messages(chat)]
    assert (first + second, end) == (everything, None)
    assert len(everything) == 6


async def test_the_limit_is_twenty_if_none_is_given(member: ApiUser) -> None:
    for _ in range(21):
        await member.create_chat()

    response = await member.request("GET", "/chats")

    assert len(response.json()["data"]) == 20
    assert response.json()["meta"]["nextCursor"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "", "9" * 40])
async def test_a_limit_out_of_bounds_is_refused(member: ApiUser, limit: str) -> None:
    response = await member.request("GET", "/chats", params={"limit": limit})

    check_refused(response, "query.limit")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "",
        "====",
        "a" * 2001,
        "\u00e9",
        encode_cursor("createdAt", (UUID(int=1),)),
        "AAAA",
        "%00",
    ],
)
async def test_an_invalid_cursor_is_rejected(member: ApiUser, cursor: str) -> None:
    response = await member.request("GET", "/chats", params={"cursor": cursor})

    check_refused(response, "query.cursor")


async def test_a_cursor_of_another_list_is_refused(member: ApiUser) -> None:
    chat = await member.create_chat()
    cursor = encode_cursor("-createdAt", (uuid4(),))

    response = await member.request("GET", f"/chats/{chat}/messages", params={"cursor": cursor})

    check_refused(response, "query.cursor")


async def test_the_cursor_of_another_user_shows_nothing_of_theirs(
    member: ApiUser, other_user: ApiUser
) -> None:
    for _ in range(3):
        await other_user.create_chat()
    _, cursor = await page(other_user, "/chats", limit=1)

    assert await page(member, "/chats", limit=10, cursor=cursor) == ([], None)


def check_refused(response: httpx.Response, path: str) -> None:
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"
    assert response.json()["error"]["details"][0]["path"] == path
