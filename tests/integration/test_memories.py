"""Memories as their owner manages them, in a real database."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from schema.actors import Actor
from schema.ids import MemoryId
from schema.memories import (
    ChangeMemoryRequest,
    CreateMemoryRequest,
    MemoryStatus,
)
from schema.result import Err, Ok
from schema.tables.columns import utc_now
from services.memories.search import MemorySearch
from services.memories.service import MemoryRefusal, MemoryService
from services.memories.writing import AlreadyStored, StoredMemory
from services.resources import Conflict, LimitReached, Unreachable
from tests.fixtures.actors import actor_of
from tests.fixtures.api_user import ApiUser
from tests.fixtures.database import Inspection
from tests.fixtures.memories import expire, found, kept, listed, set_status
from tests.fixtures.plans import allow
from tests.fixtures.stack import Stack


async def test_an_accepted_suggestion_is_found_and_accepted_once(
    stack: Stack, memories: MemoryService, search: MemorySearch, actor: Actor
) -> None:
    memory = await kept(memories, actor, "Has a dog.")
    await set_status(stack.inspection, memory, "suggested")

    results = [await memories.accept(actor, memory.id) for _ in range(2)]

    assert results[0] == results[1]
    assert isinstance(results[0], Ok)
    assert results[0].value.status is MemoryStatus.ACCEPTED
    assert results[0].value.version == memory.version + 1
    assert await found(search, actor, "dog") == ["Has a dog."]
    assert await memories.reject(actor, memory.id) == Err(MemoryRefusal.ACCEPTED_BEFORE)


async def test_a_rejected_suggestion_stays_rejected(
    stack: Stack, memories: MemoryService, actor: Actor
) -> None:
    memory = await kept(memories, actor, "Has a dog.")
    await set_status(stack.inspection, memory, "suggested")

    results = [await memories.reject(actor, memory.id) for _ in range(2)]

    assert results[0] == results[1]
    assert isinstance(results[0], Ok)
    assert results[0].value.status is MemoryStatus.REJECTED
    assert await memories.accept(actor, memory.id) == Err(MemoryRefusal.REJECTED_BEFORE)


async def test_one_of_two_concurrent_opposite_decisions_holds(
    stack: Stack, memories: MemoryService, actor: Actor
) -> None:
    memory = await kept(memories, actor, "Has a dog.")
    await set_status(stack.inspection, memory, "suggested")

    results = await asyncio.gather(
        *(decide(actor, memory.id) for decide in (memories.accept, memories.reject) * 5)
    )

    decided = {result.value.status for result in results if isinstance(result, Ok)}
    assert len(decided) == 1
    assert sum(isinstance(result, Err) for result in results) == 5


async def test_one_of_several_updates_of_the_same_version_wins(
    memories: MemoryService, actor: Actor
) -> None:
    memory = await kept(memories, actor, "Has a dog.")

    results = await asyncio.gather(
        *(
            memories.change(
                actor,
                memory.id,
                ChangeMemoryRequest(content=f"Has {number} dogs."),
                versions={memory.version},
            )
            for number in range(8)
        )
    )

    winners = [result.value for result in results if isinstance(result, Ok)]
    assert len(winners) == 1
    assert await memories.get(actor, memory.id) == Ok(winners[0])
    assert [result for result in results if isinstance(result, Err)] == 7 * [
        Err(Conflict.VERSION_CHANGED)
    ]


async def test_a_hundred_concurrent_requests_store_only_what_the_plan_allows(
    memories: MemoryService, user: ApiUser, inspection: Inspection
) -> None:
    await allow(inspection, user.id, max_memories=5)
    actor = actor_of(user)

    results = await asyncio.gather(
        *(
            memories.create(actor, CreateMemoryRequest(content=f"Fact {number}"), key=None)
            for number in range(100)
        )
    )

    assert sum(isinstance(result, Ok) for result in results) == 5
    assert [result for result in results if isinstance(result, Err)] == 95 * [Err(LimitReached(5))]
    count = "SELECT count(*) FROM memories WHERE user_id = $1"
    assert await inspection.value(count, UUID(user.id)) == 5


async def test_a_refused_creation_leaves_its_key_free(
    memories: MemoryService, user: ApiUser, inspection: Inspection
) -> None:
    await allow(inspection, user.id, max_memories=1)
    actor = actor_of(user)
    first = await kept(memories, actor, "Has a dog.")
    request = CreateMemoryRequest(content="Has a cat.")

    assert await memories.create(actor, request, key="k") == Err(LimitReached(1))
    await memories.delete(actor, first.id)
    made = await memories.create(actor, request, key="k")
    again = await memories.create(actor, request, key="k")

    assert isinstance(made, Ok)
    assert made == again


async def test_a_key_creates_one_memory_however_often_it_is_sent(
    memories: MemoryService, actor: Actor
) -> None:
    request = CreateMemoryRequest(content="Has a dog.")

    results = await asyncio.gather(
        *(memories.create(actor, request, key="once") for _ in range(10))
    )

    assert len({result.value.memory.id for result in results if isinstance(result, Ok)}) == 1
    assert all(isinstance(result, Ok) for result in results)
    other = CreateMemoryRequest(content="Has a cat.")
    assert await memories.create(actor, other, key="once") == Err(Conflict.KEY_REUSED)


async def test_a_deleted_memory_is_gone_and_audited(
    memories: MemoryService, search: MemorySearch, actor: Actor, inspection: Inspection
) -> None:
    memory = await kept(memories, actor, "Has a dog.")

    assert await memories.delete(actor, memory.id) == Ok(None)

    assert await memories.delete(actor, memory.id) == Err(Unreachable.MISSING)
    assert await found(search, actor, "dog") == []
    entries = await inspection.rows(
        "SELECT action, actor_id, details FROM audit_log WHERE resource_id = $1", str(memory.id)
    )
    assert [(entry["action"], entry["actor_id"]) for entry in entries] == [
        ("memory.deleted", actor.user_id)
    ]


async def test_a_memory_is_out_of_reach_for_other_users(
    memories: MemoryService, actor: Actor, other_user: ApiUser
) -> None:
    memory = await kept(memories, actor, "Has a dog.")
    stranger = actor_of(other_user)
    change = ChangeMemoryRequest(importance=0.1)

    assert {
        str(await attempt)
        for attempt in (
            memories.get(stranger, memory.id),
            memories.change(stranger, memory.id, change, versions=None),
            memories.delete(stranger, memory.id),
            memories.accept(stranger, memory.id),
            memories.reject(stranger, memory.id),
        )
    } == {str(Err(Unreachable.FORBIDDEN))}
    missing = MemoryId(uuid4())
    assert await memories.get(stranger, missing) == Err(Unreachable.MISSING)
    assert await memories.get(actor, memory.id) == Ok(memory)


async def test_the_same_content_sent_twice_at_once_gives_one_memory(
    memories: MemoryService, actor: Actor
) -> None:
    first, again = await asyncio.gather(*(kept(memories, actor, "Has a dog.") for _ in range(2)))

    assert first == again
    assert await listed(memories, actor) == ["Has a dog."]


@pytest.mark.parametrize(
    "again",
    ["has a dog", "  Has a dog!! ", "\uff28\uff41\uff53 a dog\u3002", "\u201cHas  a\ndog.\u201d"],
)
async def test_content_that_differs_by_writing_alone_is_the_same_memory(
    memories: MemoryService, actor: Actor, again: str
) -> None:
    first = await kept(memories, actor, "Has a dog.")

    assert await kept(memories, actor, again) == first
    assert await listed(memories, actor) == ["Has a dog."]


async def test_signs_that_belong_to_a_name_are_no_punctuation(
    memories: MemoryService, actor: Actor
) -> None:
    contents = ["Writes C.", "Writes C++.", "Writes C#.", "!!!", "???"]
    for content in contents:
        await kept(memories, actor, content)

    assert await listed(memories, actor) == contents


async def test_a_repetition_uses_up_neither_a_key_nor_the_quota(
    memories: MemoryService, user: ApiUser, inspection: Inspection
) -> None:
    await allow(inspection, user.id, max_memories=1)
    actor, request = actor_of(user), CreateMemoryRequest(content="Has a dog.")
    first = await kept(memories, actor, "Has a dog.")

    repeated = await memories.create(actor, request, key="k")
    await memories.delete(actor, first.id)
    created = await memories.create(actor, request, key="k")

    assert repeated == Ok(AlreadyStored(first, is_identical=True))
    assert isinstance(created, Ok)
    assert isinstance(created.value, StoredMemory)
    assert created.value.memory.id != first.id


async def test_creating_what_was_suggested_accepts_it(
    stack: Stack, memories: MemoryService, actor: Actor
) -> None:
    suggested = await kept(memories, actor, "Has a dog.")
    await set_status(stack.inspection, suggested, "suggested")

    results = [
        await memories.create(actor, CreateMemoryRequest(content="has a dog"), key="k")
        for _ in range(2)
    ]

    assert results[0] == results[1]
    assert isinstance(results[0], Ok)
    memory = results[0].value.memory
    assert (memory.id, memory.status) == (suggested.id, MemoryStatus.ACCEPTED)


async def test_creating_what_has_expired_renews_it(
    memories: MemoryService, search: MemorySearch, actor: Actor, inspection: Inspection
) -> None:
    memory = await kept(memories, actor, "Has a dog.")
    await expire(inspection, memory)
    assert await found(search, actor, "dog") == []

    renewed = await kept(memories, actor, "Has a dog.", pinned=True)

    assert (renewed.id, renewed.expires_at, renewed.pinned) == (memory.id, None, True)
    assert await found(search, actor, "dog") == ["Has a dog."]


async def test_a_change_to_the_content_of_another_memory_is_refused(
    memories: MemoryService, actor: Actor, other_user: ApiUser
) -> None:
    await kept(memories, actor, "Has a dog.")
    await kept(memories, actor_of(other_user), "Has a cat.")
    memory = await kept(memories, actor, "Has a cow.")

    async def change(content: str) -> object:
        request = ChangeMemoryRequest(content=content)
        return await memories.change(actor, memory.id, request, versions=None)

    assert await change("has a DOG") == Err(MemoryRefusal.SAME_CONTENT)
    assert await memories.get(actor, memory.id) == Ok(memory)
    assert isinstance(await change("HAS A COW!"), Ok)
    assert isinstance(await change("Has a cat."), Ok)


async def test_one_of_several_concurrent_changes_gets_a_content(
    memories: MemoryService, actor: Actor
) -> None:
    made = [await kept(memories, actor, f"Has {number} dogs.") for number in range(6)]
    request = ChangeMemoryRequest(content="Has a cat.")

    results = await asyncio.gather(
        *(memories.change(actor, memory.id, request, versions=None) for memory in made)
    )

    assert sum(isinstance(result, Ok) for result in results) == 1
    assert results.count(Err(MemoryRefusal.SAME_CONTENT)) == 5


async def test_an_expiry_and_a_pin_are_changed_and_removed(
    memories: MemoryService, actor: Actor
) -> None:
    soon = utc_now().replace(microsecond=0) + timedelta(days=1)
    memory = await kept(memories, actor, "Has a dog.", expires_at=soon, pinned=True)
    assert (memory.expires_at, memory.pinned) == (soon, True)

    change = ChangeMemoryRequest.model_validate({"expires_at": None, "pinned": False})
    changed = await memories.change(actor, memory.id, change, versions=None)

    assert isinstance(changed, Ok)
    assert (changed.value.expires_at, changed.value.pinned) == (None, False)


async def test_a_memory_like_a_rejected_suggestion_is_created(
    stack: Stack, memories: MemoryService, actor: Actor
) -> None:
    rejected = await kept(memories, actor, "Has a dog.")
    await set_status(stack.inspection, rejected, "rejected")

    created = await kept(memories, actor, "Has a dog.")

    assert created.id != rejected.id
    assert created.status is MemoryStatus.ACCEPTED
