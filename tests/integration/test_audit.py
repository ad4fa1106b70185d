"""The audit log: searched by administrators, changed by no one."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from schema.actors import SERVICE, Actor, ActorType, acting_user
from schema.audit import AuditAction, AuditEntry, AuditFilter, ResourceType
from schema.ids import UserId, new_id
from schema.pages import PageRequest
from schema.tables.columns import utc_now
from services.audit import Origin, network_of, record, set_origin
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack

DEED = (ResourceType.CHAT, "thing")


async def noted(
    stack: Stack,
    actor: Actor,
    *,
    action: AuditAction = AuditAction.CHAT_DELETED,
    resource: tuple[ResourceType, object] = DEED,
    subject_id: UUID | None = None,
) -> None:
    """Record a deed."""
    async with stack.foundation.database.transaction(actor) as session:
        record(session, actor, action, resource, subject_id=subject_id, details={"count": 1})


async def found(stack: Stack, administrator: Actor, **chosen: Any) -> list[AuditEntry]:  # noqa: ANN401 -- as the filter's fields
    page = await stack.services.operations.audit.list_entries(
        administrator, AuditFilter(**chosen), PageRequest(100)
    )
    return list(page.items)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_log SET details = '{}'", "DELETE FROM audit_log", "TRUNCATE audit_log"],
)
@pytest.mark.parametrize("actor_type", [ActorType.USER, ActorType.ADMIN, ActorType.SERVICE])
async def test_no_actor_changes_the_log(
    stack: Stack, user: ApiUser, statement: str, actor_type: ActorType
) -> None:
    actor = Actor(type=actor_type, user_id=UserId(UUID(user.id)))
    await noted(stack, acting_user(actor.user_id))

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with stack.foundation.database.statements(actor) as connection:
            await connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_log SET details = '{}'", "DELETE FROM audit_log", "TRUNCATE audit_log"],
)
async def test_not_even_the_superuser_changes_the_log(
    stack: Stack, user: ApiUser, statement: str
) -> None:
    await noted(stack, acting_user(UserId(UUID(user.id))))

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await stack.inspection.execute(statement)


@pytest.mark.parametrize(
    "claimed",
    [
        Actor(type=ActorType.USER, user_id=UserId(uuid4())),
        Actor(type=ActorType.SERVICE, user_id=SERVICE.user_id),
        None,
    ],
    ids=["another user", "the service", "an administrator"],
)
async def test_no_actor_records_an_action_in_anothers_name(
    stack: Stack, user: ApiUser, claimed: Actor | None
) -> None:
    own = acting_user(UserId(UUID(user.id)))
    as_whom = claimed or Actor(type=ActorType.ADMIN, user_id=own.user_id)

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with stack.foundation.database.statements(own) as connection:
            await connection.execute(
                "INSERT INTO audit_log (id, actor_type, actor_id, action, resource_type) "
                "VALUES ($1, $2, $3, 'chat.deleted', 'chat')",
                new_id(),
                as_whom.type.value,
                as_whom.user_id,
            )


async def test_users_read_only_their_own_entries(
    stack: Stack, user: ApiUser, other_user: ApiUser
) -> None:
    own, other = (acting_user(UserId(UUID(person.id))) for person in (user, other_user))
    await noted(stack, own)
    await noted(stack, other)

    page = await stack.services.operations.audit.list_entries(own, AuditFilter(), PageRequest(100))

    assert {entry.actor_id for entry in page.items} == {own.user_id}


async def test_an_entry_names_the_actor_action_resource_and_origin(
    stack: Stack, user: ApiUser, administrator: Actor
) -> None:
    own, subject, request_id = acting_user(UserId(UUID(user.id))), uuid4(), uuid4().hex
    set_origin(Origin(request_id=request_id, network=network_of("2001:db8:7:8::1")))

    await noted(stack, own, subject_id=subject)

    (entry,) = await found(stack, administrator, request_id=request_id)
    assert (entry.actor_type, entry.actor_id) == (ActorType.USER, own.user_id)
    assert (entry.action, entry.resource_type, entry.resource_id) == (
        "chat.deleted",
        "chat",
        "thing",
    )
    assert (entry.subject_id, entry.address, entry.details) == (
        subject,
        "2001:db8:7::/48",
        {"count": 1},
    )


async def test_filters_are_combined(stack: Stack, user: ApiUser, administrator: Actor) -> None:
    own, subject = acting_user(UserId(UUID(user.id))), uuid4()
    thing = (ResourceType.MEMORY, uuid4())
    before = utc_now()
    await noted(stack, own)
    await noted(stack, own, action=AuditAction.MEMORY_DELETED, resource=thing, subject_id=subject)
    await noted(stack, own, action=AuditAction.USER_EXPORTED, resource=thing)
    after = utc_now() + timedelta(seconds=1)

    async def actions(**chosen: object) -> list[str]:
        entries = await found(stack, administrator, actor_id=own.user_id, **chosen)
        return [entry.action for entry in entries if entry.action != AuditAction.USER_SIGNED_UP]

    everything = ["user.exported", "memory.deleted", "chat.deleted"]
    assert await actions() == everything
    assert await actions(since=before, until=after) == everything
    assert await actions(until=before) == []
    assert await actions(since=after) == []
    assert await actions(subject_id=subject) == ["memory.deleted"]
    assert await actions(resource_id=str(thing[1])) == everything[:2]
    assert await actions(resource_type=ResourceType.CHAT) == ["chat.deleted"]
    assert await actions(resource_type=ResourceType.CHAT, resource_id=str(thing[1])) == []
    assert (
        await actions(action=[AuditAction.CHAT_DELETED, AuditAction.MEMORY_DELETED])
        == (everything[1:])
    )
    assert await actions(action=[AuditAction.CHAT_DELETED], subject_id=subject) == []


async def test_pages_hold_every_entry_once_while_more_is_recorded(
    stack: Stack, user: ApiUser, administrator: Actor
) -> None:
    own = acting_user(UserId(UUID(user.id)))
    chosen = AuditFilter(actor_id=own.user_id, action=[AuditAction.CHAT_DELETED])
    await asyncio.gather(*(noted(stack, own) for _ in range(5)))
    expected = [
        entry.id
        for entry in (
            await stack.services.operations.audit.list_entries(
                administrator, chosen, PageRequest(100)
            )
        ).items
    ]

    seen: list[UUID] = []
    cursor = None
    for _ in range(3):
        page = await stack.services.operations.audit.list_entries(
            administrator, chosen, PageRequest(2, cursor)
        )
        seen += [entry.id for entry in page.items]
        cursor = page.next_cursor
        await noted(stack, own)

    assert seen == expected
    assert cursor is None


async def test_rolled_back_changes_are_not_recorded(
    stack: Stack, user: ApiUser, administrator: Actor
) -> None:
    own, thing = acting_user(UserId(UUID(user.id))), uuid4()

    async with stack.foundation.database.transaction(own) as session:
        record(session, own, AuditAction.CHAT_DELETED, (ResourceType.CHAT, thing))
        await session.rollback()

    assert await found(stack, administrator, resource_id=str(thing)) == []
