"""Memories are found by what they mean: by their newest words, by one embedder, by their owner."""

from typing import Final
from uuid import UUID

import pytest

from schema.actors import Actor
from schema.memories import (
    ChangeMemoryRequest,
    SearchMemoriesRequest,
)
from schema.result import Err, Ok
from services.embeddings import EmbeddingError, Purpose
from services.memories.search import MemorySearch
from services.memories.service import MemoryService
from services.resources import Unreachable
from tests.fakes.embedding_api import OWN_DIMENSIONS, never, saying
from tests.fixtures.actors import actor_of
from tests.fixtures.api_user import ApiUser
from tests.fixtures.database import Inspection
from tests.fixtures.memories import Scripted, found, kept, set_status
from tests.fixtures.stack import Stack


async def test_a_search_ranks_by_meaning_closest_first(
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


async def test_a_search_returns_at_most_the_requested_number(
    memories: MemoryService, search: MemorySearch, actor: Actor
) -> None:
    for number in range(4):
        await kept(memories, actor, f"Has been to Rome {number} times.")

    assert len(await found(search, actor, "Rome", limit=3)) == 3


async def test_a_search_finds_no_memory_of_another_user(
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
    assert isinstance(await memories.change(actor, memory.id, change, versions=None), Ok)

    by_old, by_new = [
        (await search.search(actor, SearchMemoriesRequest(query=f"Lives in {city}.")))[0]
        for city in ("Rome", "Oslo")
    ]
    assert by_new.score == pytest.approx(1.0, abs=1e-5)
    assert by_old.score < 0.99


async def test_an_update_of_another_field_requests_no_vector(
    scripted: Scripted, actor: Actor
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")

    changed = await memories.change(
        actor, memory.id, ChangeMemoryRequest(importance=0.9), versions=None
    )

    assert isinstance(changed, Ok)
    assert (changed.value.importance, changed.value.version) == (0.9, 2)
    assert len(scripted.provider.requests) == 1
    assert await found(scripted.search, actor, "Lives in Rome.") == ["Lives in Rome."]


async def test_no_vector_is_requested_for_a_memory_out_of_reach(
    scripted: Scripted, actor: Actor, other_user: ApiUser
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")

    change = ChangeMemoryRequest(content="Lives nowhere.")
    refused = await memories.change(actor_of(other_user), memory.id, change, versions=None)

    assert refused == Err(Unreachable.FORBIDDEN)
    assert len(scripted.provider.requests) == 1


OUTAGES: Final = {
    "silent": never,
    "failing": saying("", status=500),
    "refusing the key": saying("", status=401),
    "talking nonsense": saying("<html>"),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_memory_is_stored_while_the_embedder_is_unavailable(
    scripted: Scripted, actor: Actor, outage: str
) -> None:
    memories = scripted.memories
    scripted.provider.script.append(OUTAGES[outage])

    memory = await kept(memories, actor, "Lives in Rome.")

    assert await memories.get(actor, memory.id) == Ok(memory)
    assert await found(scripted.search, actor, "Lives in Rome.") == []


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_search_fails_in_good_time_while_the_embedder_is_unavailable(
    scripted: Scripted, actor: Actor, outage: str
) -> None:
    scripted.provider.script.append(OUTAGES[outage])

    with pytest.raises(EmbeddingError):
        await found(scripted.search, actor, "Rome")


async def test_content_changed_while_the_embedder_is_unavailable_keeps_no_old_vector(
    inspection: Inspection, scripted: Scripted, actor: Actor
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")
    scripted.provider.script.append(saying("", status=503))

    change = ChangeMemoryRequest(content="Lives in Oslo.")
    await memories.change(actor, memory.id, change, versions=None)

    assert await found(scripted.search, actor, "Lives in Rome.") == []
    embedder = "SELECT embedder FROM memories WHERE id = $1"
    assert await inspection.value(embedder, memory.id) is None


async def test_unchanged_content_keeps_its_vector_while_the_embedder_is_unavailable(
    scripted: Scripted, actor: Actor
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")
    scripted.provider.script.append(saying("", status=503))

    change = ChangeMemoryRequest(content="Lives in Rome.")
    await memories.change(actor, memory.id, change, versions=None)

    assert await found(scripted.search, actor, "Rome") == ["Lives in Rome."]


async def test_vectors_of_another_embedder_are_never_compared(
    stack: Stack, memories: MemoryService, scripted: Scripted, actor: Actor
) -> None:
    await kept(memories, actor, "Embedded by one.")
    await kept(scripted.memories, actor, "Embedded by the other.")

    assert await found(scripted.search, actor, "one") == ["Embedded by the other."]
    assert await found(stack.services.memories.search, actor, "one") == ["Embedded by one."]


async def test_relevant_memories_are_near_enough(
    stack: Stack, actor: Actor, other_user: ApiUser
) -> None:
    memories, search = stack.services.memories.store, stack.services.memories.search
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
async def test_only_accepted_memories_are_found(stack: Stack, actor: Actor, status: str) -> None:
    memories, search = stack.services.memories.store, stack.services.memories.search
    await set_status(stack.inspection, await kept(memories, actor, "Has a dog."), status)
    query = await stack.foundation.embedder.embed(["Has a dog."], purpose=Purpose.QUERY)

    assert await found(search, actor, "Has a dog.") == []
    assert await search.relevant(actor, query[0], limit=5, min_score=-1) == []
