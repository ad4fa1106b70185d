"""The usage of all users over HTTP: groups, totals, filters, pages."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.fixtures.api_user import ApiUser
from tests.fixtures.plans import charge
from tests.fixtures.stack import Stack

AT = datetime(2019, 6, 15, tzinfo=UTC)
JUNE = {"from": "2019-06-01T00:00:00Z", "to": "2019-07-01T00:00:00Z"}
SUMS = {"calls", "turns", "usage", "costUsd"}


async def usage(recorded: httpx.AsyncClient, admin: ApiUser, **params: str | int) -> Any:  # noqa: ANN401 -- any JSON
    response = await recorded.get("/admin/usage", params=params, headers=admin.headers)
    assert response.status_code == 200, response.text
    return response.json()


async def test_usage_comes_by_user_with_totals(
    recorded: httpx.AsyncClient, admin: ApiUser, member: ApiUser, stack: Stack
) -> None:
    await charge(stack.inspection, member.id, at=AT, cost_usd="0.10")
    await charge(stack.inspection, member.id, at=AT, cost_usd="0.05", step=2)

    body = await usage(recorded, admin, **JUNE, userId=member.id)

    (row,) = body["data"]
    assert set(body["meta"]) == {"requestId", "nextCursor", "totals"}
    assert set(row) == SUMS | {"userId", "model", "day"}
    assert (row["userId"], row["model"], row["day"]) == (member.id, None, None)
    assert (row["calls"], row["turns"], row["costUsd"]) == (2, 1, "0.15")
    assert body["meta"]["totals"] == {key: row[key] for key in SUMS}


async def test_usage_comes_by_model_and_by_day_page_after_page(
    recorded: httpx.AsyncClient, admin: ApiUser, member: ApiUser, stack: Stack
) -> None:
    await charge(stack.inspection, member.id, at=AT, model="usage a")
    await charge(stack.inspection, member.id, at=AT.replace(day=14), model="usage b")
    expected = {"model": ["usage a", "usage b"], "day": ["2019-06-15", "2019-06-14"]}

    for group_by, keys in expected.items():
        chosen: dict[str, str | int] = {
            **JUNE,
            "userId": member.id,
            "groupBy": group_by,
            "limit": 1,
        }
        first = await usage(recorded, admin, **chosen)
        second = await usage(recorded, admin, **chosen, cursor=first["meta"]["nextCursor"])

        assert [row[group_by] for row in first["data"] + second["data"]] == keys
        assert first["meta"]["totals"] == second["meta"]["totals"]
        assert second["meta"]["nextCursor"] is None


async def test_usage_covers_the_last_days_by_default(
    recorded: httpx.AsyncClient, admin: ApiUser, member: ApiUser, stack: Stack
) -> None:
    await charge(stack.inspection, member.id, at=AT)

    recent = await usage(recorded, admin, userId=member.id)
    until = await usage(recorded, admin, userId=member.id, to=JUNE["to"])

    assert (recent["data"], recent["meta"]["totals"]["costUsd"]) == ([], "0")
    assert len(until["data"]) == 1


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"groupBy": "country"}, "query.groupBy"),
        ({"userId": "x"}, "query.userId"),
        ({"model": ""}, "query.model"),
        ({"model": "\x00"}, "query.model"),
        ({"from": "yesterday"}, "query.from"),
        ({"from": "2019-06-01"}, "query.from"),
        ({"to": "9999-12-31T23:59:59-14:00"}, "query.to"),
        ({"from": JUNE["to"], "to": JUNE["from"]}, "query.to"),
        ({"cursor": "x"}, "query.cursor"),
        ({"limit": "101"}, "query.limit"),
    ],
    ids=str,
)
async def test_an_invalid_query_is_rejected_with_the_parameter(
    recorded: httpx.AsyncClient, admin: ApiUser, params: dict[str, str], path: str
) -> None:
    response = await recorded.get("/admin/usage", params=params, headers=admin.headers)

    assert response.status_code == 400, response.text
    assert response.json()["error"]["details"][0]["path"] == path


async def test_the_cursor_of_another_grouping_is_refused(
    recorded: httpx.AsyncClient, admin: ApiUser, member: ApiUser, stack: Stack
) -> None:
    for day in (14, 15):
        await charge(stack.inspection, member.id, at=AT.replace(day=day))
    by_day = await usage(recorded, admin, **JUNE, groupBy="day", limit=1)

    params = {"groupBy": "model", "cursor": by_day["meta"]["nextCursor"]}
    response = await recorded.get("/admin/usage", params=params, headers=admin.headers)

    assert response.status_code == 400


async def test_a_member_reads_no_usage_of_all(member: ApiUser) -> None:
    assert (await member.request("GET", "/admin/usage")).status_code == 403
