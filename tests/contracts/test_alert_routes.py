"""Alerts over HTTP: entries, filters, pages."""

from uuid import UUID

import httpx
import pytest

from schema.actors import SERVICE
from schema.alerts import AlertKind, AlertSeverity
from schema.ids import UserId
from services.alerts import raise_alert
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack

ALERT = {
    *("id", "kind", "severity", "userId", "resourceType", "resourceId", "details"),
    *("createdAt", "deliveryStatus", "deliveryAttempts", "deliveryProblem", "deliveredAt"),
}


async def raised(stack: Stack, member: ApiUser, severity: AlertSeverity) -> str:
    async with stack.foundation.database.transaction(SERVICE) as session:
        user_id = UserId(UUID(member.id))
        return str(await raise_alert(session, AlertKind.BUDGET_REACHED, severity, user_id=user_id))


async def test_alerts_are_listed_newest_first_page_after_page(
    recorded: httpx.AsyncClient, admin: ApiUser, member: ApiUser, stack: Stack
) -> None:
    expected = [await raised(stack, member, severity) for severity in AlertSeverity][::-1]
    params: dict[str, str | int] = {"userId": member.id, "kind": "budget.reached", "limit": 2}

    first = await recorded.get("/admin/alerts", params=params, headers=admin.headers)
    params["cursor"] = first.json()["meta"]["nextCursor"]
    second = await recorded.get("/admin/alerts", params=params, headers=admin.headers)

    alerts = first.json()["data"] + second.json()["data"]
    assert [alert["id"] for alert in alerts] == expected
    assert set(alerts[0]) == ALERT
    assert (alerts[0]["severity"], alerts[0]["userId"]) == ("critical", member.id)
    assert second.json()["meta"]["nextCursor"] is None


async def test_alerts_are_filtered(
    recorded: httpx.AsyncClient, admin: ApiUser, member: ApiUser, stack: Stack
) -> None:
    await raised(stack, member, AlertSeverity.INFO)
    critical = await raised(stack, member, AlertSeverity.CRITICAL)
    params = {"userId": member.id, "severity": "critical", "from": "2020-01-01T00:00:00Z"}

    found = await recorded.get("/admin/alerts", params=params, headers=admin.headers)
    none = await recorded.get(
        "/admin/alerts",
        params={"userId": member.id, "to": "2020-01-01T00:00:00Z"},
        headers=admin.headers,
    )

    assert [alert["id"] for alert in found.json()["data"]] == [critical]
    assert none.json()["data"] == []


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"kind": "x"}, "query.kind"),
        ({"severity": "x"}, "query.severity"),
        ({"userId": "x"}, "query.userId"),
        ({"to": "x"}, "query.to"),
        ({"from": "2026-02-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}, "query.to"),
        ({"cursor": "x"}, "query.cursor"),
    ],
    ids=str,
)
async def test_an_invalid_query_is_rejected_with_the_parameter(
    recorded: httpx.AsyncClient, admin: ApiUser, params: dict[str, str], path: str
) -> None:
    response = await recorded.get("/admin/alerts", params=params, headers=admin.headers)

    assert response.status_code == 400, response.text
    assert response.json()["error"]["details"][0]["path"] == path


async def test_members_cannot_read_alerts(member: ApiUser) -> None:
    assert (await member.request("GET", "/admin/alerts")).status_code == 403
