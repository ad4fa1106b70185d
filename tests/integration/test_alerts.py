"""Alerts: raised once, read by administrators alone."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from schema.actors import SERVICE, Actor, acting_user
from schema.alerts import Alert, AlertFilter, AlertKind, AlertSeverity
from schema.audit import ResourceType
from schema.ids import UserId
from schema.pages import PageRequest
from schema.tables.columns import utc_now
from services.alerts import raise_alert
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack


async def raised(
    stack: Stack,
    *,
    actor: Actor = SERVICE,
    kind: AlertKind = AlertKind.BUDGET_REACHED,
    severity: AlertSeverity = AlertSeverity.WARNING,
    user_id: UserId | None = None,
    dedup_key: str | None = None,
) -> UUID | None:
    async with stack.foundation.database.transaction(actor) as session:
        return await raise_alert(
            session,
            kind,
            severity,
            user_id=user_id,
            resource=(ResourceType.PLAN, "a plan"),
            details={"percent": 80},
            dedup_key=dedup_key,
        )


async def listed(stack: Stack, actor: Actor, chosen: AlertFilter) -> list[Alert]:
    return list(
        (await stack.services.operations.alerts.list_alerts(actor, chosen, PageRequest(100))).items
    )


async def test_one_key_alerts_once_however_many_raise_it(
    stack: Stack, user: ApiUser, administrator: Actor
) -> None:
    user_id, key = UserId(UUID(user.id)), uuid4().hex

    ids = await asyncio.gather(*(raised(stack, user_id=user_id, dedup_key=key) for _ in range(5)))
    again = await raised(stack, user_id=user_id, dedup_key=key)

    (alert,) = await listed(stack, administrator, AlertFilter(user_id=user_id))
    assert {alert_id for alert_id in ids if alert_id is not None} == {alert.id}
    assert again is None
    assert (alert.kind, alert.severity) == ("budget.reached", AlertSeverity.WARNING)
    assert (alert.resource_type, alert.resource_id) == ("plan", "a plan")
    assert alert.details == {"percent": 80}


async def test_without_a_key_every_alert_is_one(
    stack: Stack, user: ApiUser, administrator: Actor
) -> None:
    user_id = UserId(UUID(user.id))

    first, second = await raised(stack, user_id=user_id), await raised(stack, user_id=user_id)

    alerts = await listed(stack, administrator, AlertFilter(user_id=user_id))
    assert [alert.id for alert in alerts] == [second, first]


async def test_filters_are_combined(stack: Stack, user: ApiUser, administrator: Actor) -> None:
    user_id, before = UserId(UUID(user.id)), utc_now()
    first = await raised(stack, user_id=user_id)
    second = await raised(
        stack,
        user_id=user_id,
        kind=AlertKind.DOCUMENT_FAILED,
        severity=AlertSeverity.CRITICAL,
    )
    after = utc_now() + timedelta(seconds=1)

    async def ids(**chosen: object) -> list[UUID]:
        fields = AlertFilter.model_validate({"user_id": user_id, **chosen})
        return [alert.id for alert in await listed(stack, administrator, fields)]

    assert await ids(since=before, until=after) == [second, first]
    assert await ids(until=before) == await ids(since=after) == []
    assert await ids(kind=AlertKind.BUDGET_REACHED) == [first]
    assert await ids(severity=AlertSeverity.CRITICAL) == [second]
    assert await ids(severity=AlertSeverity.CRITICAL, kind=AlertKind.BUDGET_REACHED) == []


async def test_pages_hold_every_alert_once_while_more_are_raised(
    stack: Stack, user: ApiUser, administrator: Actor
) -> None:
    user_id = UserId(UUID(user.id))
    expected = [await raised(stack, user_id=user_id) for _ in range(3)][::-1]

    seen: list[UUID] = []
    cursor = None
    for _ in range(2):
        page = await stack.services.operations.alerts.list_alerts(
            administrator, AlertFilter(user_id=user_id), PageRequest(2, cursor)
        )
        seen += [alert.id for alert in page.items]
        cursor = page.next_cursor
        await raised(stack, user_id=user_id)

    assert seen == expected
    assert cursor is None


async def test_users_neither_raise_nor_read_alerts(stack: Stack, user: ApiUser) -> None:
    own = acting_user(UserId(UUID(user.id)))
    await raised(stack, user_id=own.user_id)

    with pytest.raises(DBAPIError, match="row-level security"):
        await raised(stack, actor=own, user_id=own.user_id)
    assert await listed(stack, own, AlertFilter()) == []
