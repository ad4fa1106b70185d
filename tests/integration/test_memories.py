"""Memories as their owner keeps them, in a real database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

import pytest

from schema.actors import Actor, acting_user
from schema.ids import MemoryId, UserId, new_id
from schema.memories import (
    ChangeMemoryRequest,
    CreateMemoryRequest,
    Memory,
    MemoryFilter,
    MemorySort,
    MemoryStatus,
    SearchMemoriesRequest,
)
from schema.pages import PageRequest
from schema.result import Err, Ok
from services.embeddings import Embedder, EmbeddingError, Purpose, make_embedder
from services.memories.room import LimitReached
from services.memories.search import MemorySearch
from services.memories.service import MemoryRefusal, MemoryService
from services.refusals import Conflict, Unreachable
from tests.fakes.embedding_api import KEY, OWN_DIMENSIONS, EmbeddingApi, never, saying, serving
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.database import Inspection
from tests.fixtures.stack import Stack

IMPATIENCE: Final = timedelta(milliseconds=300)


def actor_of(user: ApiUser) -> Actor:
    return acting_user(UserId(UUID(user.id)))


@pytest.fixture
def actor(user: ApiUser) -> Actor:
    """A new user, as services know them."""
    return actor_of(user)


@pytest.fixture
def memories(stack: Stack) -> MemoryService:
    """The stack's service, with the embedded model."""
    return stack.services.memories


@pytest.fixture
def search(stack: Stack) -> MemorySearch:
    """The stack's search, with the embedded model."""
    return stack.services.memory_search


@dataclass(frozen=True, slots=True)
class Scripted:
    """Memories with the vectors of a provider that does as it is told."""

    provider: EmbeddingApi
    embedder: Embedder
    memories: MemoryService
    search: MemorySearch


@pytest.fixture
async def scripted(stack: Stack) -> AsyncIterator[Scripted]:
    """Memories in the stack's database whose embedder is scripted, and not waited for long."""
    provider, database = EmbeddingApi(), stack.foundation.database
    async with serving(provider) as origin:
        embedder = make_embedder(
            "openai",
            model="scripted",
            base_url=f"{origin}/compatible",
            dimensions=OWN_DIMENSIONS,
            openai_api_key=KEY,
        )
        standings = stack.services.standings
        yield Scripted(
            provider=provider,
            embedder=embedder,
            memories=MemoryService(database, embedder, standings, patience=IMPATIENCE),
            search=MemorySearch(database, embedder, patience=IMPATIENCE),
        )
        await embedder.close()


async def kept(memories: MemoryService, actor: Actor, content: str, **fields: object) -> Memory:
    request = CreateMemoryRequest.model_validate({"content": content, **fields})
    result = await memories.create(actor, request, key=None)
    assert isinstance(result, Ok), result
    return result.value


async def found(search: MemorySearch, actor: Actor, query: str, limit: int = 10) -> list[str]:
    hits = await search.search(actor, SearchMemoriesRequest(query=query, limit=limit))
    return [hit.content for hit in hits]


async def allow(inspection: Inspection, user: ApiUser, *, max_memories: int) -> None:
    plan_id = new_id()
    await inspection.execute(
        "INSERT INTO plans (id, name, entitlements) "
        "VALUES ($1, $2, jsonb_build_object('max_memories', $3::integer))",
        plan_id,
        unique("plan"),
        max_memories,
    )
    await inspection.execute(
        "INSERT INTO subscriptions (user_id, plan_id) VALUES ($1, $2)", UUID(user.id), plan_id
    )


async def set_status(inspection: Inspection, memory: Memory, status: str) -> None:
    await inspection.execute("UPDATE memories SET status = $2 WHERE id = $1", memory.id, status)


async def test_a_search_finds_what_is_meant_closest_first(
    memories: MemoryService, search: MemorySearch, actor: Actor
) -> None:
    for content in ("Works as a nurse in Turin.", "Has a dog called Rex.", "Is afraid of heights."):
        await kept(memories, actor, content)

    hits = await search.search(actor, SearchMemoriesRequest(query="What pet do they have?"))

    assert hits[0].content == "Has a dog called Rex."
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(hits) == 3


async def test_the_same_words_have_a_score_of_one(
    memories: MemoryService, search: MemorySearch, actor: Actor
) -> None:
    memory = await kept(memories, actor, "Has a dog called Rex.")

    [hit] = await search.search(actor, SearchMemoriesRequest(query="Has a dog called Rex."))

    assert hit.model_dump(exclude={"score"}) == memory.model_dump()
    assert hit.score == pytest.approx(1.0, abs=1e-5)


async def test_a_search_gives_no_more_than_it_was_asked_for(
    memories: MemoryService, search: MemorySearch, actor: Actor
) -> None:
    for number in range(4):
        await kept(memories, actor, f"Has been to Rome {number} times.")

    assert len(await found(search, actor, "Rome", limit=3)) == 3


async def test_nobody_finds_the_memories_of_another(
    memories: MemoryService, search: MemorySearch, actor: Actor, other_user: ApiUser
) -> None:
    await kept(memories, actor, "Has a dog called Rex.")
    await kept(memories, actor_of(other_user), "Has a cat called Tom.")

    assert await found(search, actor, "Has a cat called Tom.") == ["Has a dog called Rex."]
    assert await found(search, actor_of(other_user), "Rex") == ["Has a cat called Tom."]


async def test_a_user_with_few_memories_among_many_finds_all_of_them(
    inspection: Inspection, scripted: Scripted, actor: Actor, other_user: ApiUser
) -> None:
    memories, search = scripted.memories, scripted.search
    for content in ("one", "two", "three"):
        await kept(memories, actor, content)
    vectors = (
        "(SELECT array_agg(random() - 0.5 + 0 * (n + d))::vector FROM generate_series(1, $3) d)"
    )
    await inspection.execute(
        "INSERT INTO memories (id, user_id, kind, content, embedder, embedding) "
        f"SELECT gen_random_uuid(), $1, 'fact', 'of another', $2, {vectors} "
        "FROM generate_series(1, 5000) n",
        UUID(other_user.id),
        scripted.embedder.name,
        OWN_DIMENSIONS,
    )
    await inspection.execute("ANALYZE memories")

    for query in ("one", "two", "three", "four"):
        assert sorted(await found(search, actor, query)) == ["one", "three", "two"]
    assert await found(search, actor, "two", limit=1) == ["two"]
    delete = "DELETE FROM memories WHERE user_id = $1"
    await inspection.execute(delete, UUID(other_user.id))


async def test_changed_content_is_found_by_its_new_words_only(
    scripted: Scripted, actor: Actor
) -> None:
    memories, search = scripted.memories, scripted.search
    memory = await kept(memories, actor, "Lives in Rome.")

    change = ChangeMemoryRequest(content="Lives in Oslo.")
    assert isinstance(await memories.change(actor, memory.id, change, version=None), Ok)

    by_old, by_new = [
        (await search.search(actor, SearchMemoriesRequest(query=f"Lives in {city}.")))[0]
        for city in ("Rome", "Oslo")
    ]
    assert by_new.score == pytest.approx(1.0, abs=1e-5)
    assert by_old.score < 0.99


async def test_a_change_of_another_field_asks_for_no_vector(
    scripted: Scripted, actor: Actor
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")

    changed = await memories.change(
        actor, memory.id, ChangeMemoryRequest(importance=0.9), version=None
    )

    assert isinstance(changed, Ok)
    assert (changed.value.importance, changed.value.version) == (0.9, 2)
    assert len(scripted.provider.requests) == 1
    assert await found(scripted.search, actor, "Lives in Rome.") == ["Lives in Rome."]


async def test_nobody_pays_for_a_vector_of_what_they_can_not_reach(
    scripted: Scripted, actor: Actor, other_user: ApiUser
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")

    change = ChangeMemoryRequest(content="Lives nowhere.")
    refused = await memories.change(actor_of(other_user), memory.id, change, version=None)

    assert refused == Err(Unreachable.FORBIDDEN)
    assert len(scripted.provider.requests) == 1


OUTAGES: Final = {
    "silent": never,
    "failing": saying("", status=500),
    "refusing the key": saying("", status=401),
    "talking nonsense": saying("<html>"),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_memory_is_kept_while_the_embedder_is_away(
    scripted: Scripted, actor: Actor, outage: str
) -> None:
    memories = scripted.memories
    scripted.provider.script.append(OUTAGES[outage])

    memory = await kept(memories, actor, "Lives in Rome.")

    assert await memories.get(actor, memory.id) == Ok(memory)
    assert await found(scripted.search, actor, "Lives in Rome.") == []


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_search_fails_in_good_time_while_the_embedder_is_away(
    scripted: Scripted, actor: Actor, outage: str
) -> None:
    scripted.provider.script.append(OUTAGES[outage])

    with pytest.raises(EmbeddingError):
        await found(scripted.search, actor, "Rome")


async def test_content_that_changes_while_the_embedder_is_away_keeps_no_old_vector(
    inspection: Inspection, scripted: Scripted, actor: Actor
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")
    scripted.provider.script.append(saying("", status=503))

    change = ChangeMemoryRequest(content="Lives in Oslo.")
    await memories.change(actor, memory.id, change, version=None)

    assert await found(scripted.search, actor, "Lives in Rome.") == []
    embedder = "SELECT embedder FROM memories WHERE id = $1"
    assert await inspection.value(embedder, memory.id) is None


async def test_the_same_words_keep_their_vector_while_the_embedder_is_away(
    scripted: Scripted, actor: Actor
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")
    scripted.provider.script.append(saying("", status=503))

    change = ChangeMemoryRequest(content="Lives in Rome.")
    await memories.change(actor, memory.id, change, version=None)

    assert await found(scripted.search, actor, "Rome") == ["Lives in Rome."]


async def test_vectors_of_another_embedder_are_never_compared(
    stack: Stack, memories: MemoryService, scripted: Scripted, actor: Actor
) -> None:
    await kept(memories, actor, "Embedded by one.")
    await kept(scripted.memories, actor, "Embedded by the other.")

    assert await found(scripted.search, actor, "one") == ["Embedded by the other."]
    assert await found(stack.services.memory_search, actor, "one") == ["Embedded by one."]


async def test_relevant_memories_are_near_enough(
    stack: Stack, actor: Actor, other_user: ApiUser
) -> None:
    memories, search = stack.services.memories, stack.services.memory_search
    for content in ("Has a dog called Rex.", "Works as a nurse in Turin."):
        await kept(memories, actor, content)
        await kept(memories, actor_of(other_user), content)
    query = await stack.foundation.embedder.embed(["Has a dog called Rex."], purpose=Purpose.QUERY)

    near = await search.relevant(actor, query[0], limit=5, min_score=0.5)
    everything = await search.relevant(actor, query[0], limit=5, min_score=-1)
    first = await search.relevant(actor, query[0], limit=1, min_score=-1)

    assert [hit.content for hit in near] == ["Has a dog called Rex."]
    assert [hit.content for hit in first] == ["Has a dog called Rex."]
    assert len(everything) == 2


@pytest.mark.parametrize("status", ["suggested", "rejected"])
async def test_only_what_is_accepted_is_found(stack: Stack, actor: Actor, status: str) -> None:
    memories, search = stack.services.memories, stack.services.memory_search
    await set_status(stack.inspection, await kept(memories, actor, "Has a dog."), status)
    query = await stack.foundation.embedder.embed(["Has a dog."], purpose=Purpose.QUERY)

    assert await found(search, actor, "Has a dog.") == []
    assert await search.relevant(actor, query[0], limit=5, min_score=-1) == []


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


async def test_of_opposite_decisions_at_once_one_holds(
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


async def test_of_changes_of_the_same_version_one_wins(
    memories: MemoryService, actor: Actor
) -> None:
    memory = await kept(memories, actor, "Has a dog.")

    results = await asyncio.gather(
        *(
            memories.change(
                actor,
                memory.id,
                ChangeMemoryRequest(content=f"Has {number} dogs."),
                version=memory.version,
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


async def test_of_a_hundred_at_once_as_many_are_kept_as_the_plan_allows(
    memories: MemoryService, user: ApiUser, inspection: Inspection
) -> None:
    await allow(inspection, user, max_memories=5)
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
    await allow(inspection, user, max_memories=1)
    actor = actor_of(user)
    first = await kept(memories, actor, "Has a dog.")
    request = CreateMemoryRequest(content="Has a cat.")

    assert await memories.create(actor, request, key="k") == Err(LimitReached(1))
    await memories.delete(actor, first.id)
    made = await memories.create(actor, request, key="k")
    again = await memories.create(actor, request, key="k")

    assert isinstance(made, Ok)
    assert made == again


async def test_a_key_makes_one_memory_however_often_it_comes(
    memories: MemoryService, actor: Actor
) -> None:
    request = CreateMemoryRequest(content="Has a dog.")

    results = await asyncio.gather(
        *(memories.create(actor, request, key="once") for _ in range(10))
    )

    assert len({result.value.id for result in results if isinstance(result, Ok)}) == 1
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


async def test_nobody_reaches_the_memory_of_another(
    memories: MemoryService, actor: Actor, other_user: ApiUser
) -> None:
    memory = await kept(memories, actor, "Has a dog.")
    stranger = actor_of(other_user)
    change = ChangeMemoryRequest(importance=0.1)

    assert {
        str(await attempt)
        for attempt in (
            memories.get(stranger, memory.id),
            memories.change(stranger, memory.id, change, version=None),
            memories.delete(stranger, memory.id),
            memories.accept(stranger, memory.id),
            memories.reject(stranger, memory.id),
        )
    } == {str(Err(Unreachable.FORBIDDEN))}
    missing = MemoryId(uuid4())
    assert await memories.get(stranger, missing) == Err(Unreachable.MISSING)
    assert await memories.get(actor, memory.id) == Ok(memory)


async def listed(
    memories: MemoryService,
    actor: Actor,
    sort: MemorySort = MemorySort.CREATED,
    **chosen: str,
) -> list[str]:
    """Return the contents of a whole list, read two by two."""
    contents: list[str] = []
    cursor: str | None = None
    while True:
        page = await memories.list_memories(
            actor, MemoryFilter.model_validate(chosen), PageRequest(2, cursor), sort=sort
        )
        contents += [memory.content for memory in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return contents


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (MemorySort.CREATED, "abcde"),
        (MemorySort.CREATED_LAST, "edcba"),
        (MemorySort.UPDATED, "abdec"),
        (MemorySort.UPDATED_LAST, "cedba"),
        (MemorySort.IMPORTANCE, "cbead"),
        (MemorySort.IMPORTANCE_LAST, "daebc"),
    ],
)
async def test_a_list_has_every_memory_once_in_each_order(
    memories: MemoryService, actor: Actor, sort: MemorySort, expected: str
) -> None:
    importances = {"a": 0.8, "b": 0.3, "c": 0.1, "d": 0.9, "e": 0.3}
    made = {
        content: await kept(memories, actor, content, importance=importance)
        for content, importance in importances.items()
    }
    change = ChangeMemoryRequest(importance=0.1)
    await memories.change(actor, made["c"].id, change, version=None)

    assert "".join(await listed(memories, actor, sort)) == expected


async def test_filters_leave_what_is_asked_for(
    stack: Stack, memories: MemoryService, actor: Actor
) -> None:
    await kept(memories, actor, "100% wool", kind="preference")
    await kept(memories, actor, "100 sheep")
    await kept(memories, actor, "a_b \\ c")
    suggested = await kept(memories, actor, "Suggested")
    rejected = await kept(memories, actor, "Rejected")
    await set_status(stack.inspection, suggested, "suggested")
    await set_status(stack.inspection, rejected, "rejected")

    accepted = ["100% wool", "100 sheep", "a_b \\ c"]
    assert await listed(memories, actor) == [*accepted, "Suggested"]
    assert await listed(memories, actor, status="accepted") == accepted
    assert await listed(memories, actor, status="rejected") == ["Rejected"]
    assert await listed(memories, actor, kind="preference") == ["100% wool"]
    assert await listed(memories, actor, search="0%") == ["100% wool"]
    assert await listed(memories, actor, search="_") == ["a_b \\ c"]
    assert await listed(memories, actor, search="\\") == ["a_b \\ c"]
    assert await listed(memories, actor, search="SHEEP") == ["100 sheep"]
