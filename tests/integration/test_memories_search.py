"""Memories are found by meaning and by words: by one embedder, by their owner, while in force."""

from typing import Final
from uuid import UUID

import pytest

from schema.actors import Actor
from schema.memories import (
    ChangeMemoryRequest,
    SearchMemoriesRequest,
)
from schema.result import Err, Ok
from services.embeddings import Purpose
from services.memories.search import MEMORIES_WITHOUT_VECTORS, MemorySearch, is_relevant
from services.memories.service import MemoryService
from services.resources import Unreachable
from tests.fakes.embedding_api import OWN_DIMENSIONS, never, saying
from tests.fixtures.actors import actor_of
from tests.fixtures.api_user import ApiUser
from tests.fixtures.database import Inspection
from tests.fixtures.memories import Scripted, expire, found, kept, set_status
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


async def test_the_same_words_have_the_best_scores(
    memories: MemoryService, search: MemorySearch, actor: Actor
) -> None:
    memory = await kept(memories, actor, "Has a dog called Rex.", importance=1)

    [hit] = await search.search(actor, SearchMemoriesRequest(query="Has a dog called Rex."))

    assert hit.model_dump(exclude={"score", "similarity", "word_match"}) == memory.model_dump()
    scores = (hit.score, hit.similarity, hit.word_match)
    assert scores == pytest.approx((1.0, 1.0, 1.0), abs=1e-5)


async def test_words_find_what_vectors_do_not(scripted: Scripted, actor: Actor) -> None:
    for content in ("The error E-2291 is old.", "Has a dog.", "Works at night.", "Likes rum."):
        await kept(scripted.memories, actor, content)

    hits = await scripted.search.search(actor, SearchMemoriesRequest(query="Why E-2291?"))

    assert hits[0].content == "The error E-2291 is old."
    assert hits[0].word_match == pytest.approx(1.0)
    assert [hit.word_match for hit in hits[1:]] == [0, 0, 0]


async def test_vectors_find_what_words_do_not(
    memories: MemoryService, search: MemorySearch, actor: Actor
) -> None:
    for content in ("Ada likes rum.", "Drives a red car.", "Is afraid of heights."):
        await kept(memories, actor, content)

    [first, *_] = await search.search(actor, SearchMemoriesRequest(query="What does she drink?"))

    assert (first.content, first.word_match) == ("Ada likes rum.", 0)


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("\u5979\u559c\u6b22\u559d\u4e4c\u9f99\u8336\u3002", "\u4e4c\u9f99\u8336"),
        ("\u67f4\u72ac\u306e\u540d\u524d\u306f\u30cf\u30c1\u3002", "\uff8a\uff81"),
        ("Takes the of\ufb01ce bus.", "offices"),
        ("It's O'Brien's \\ 'quoted'.", "O'Brien \\ ''"),
    ],
    ids=["Chinese", "half-width kana", "a ligature and a plural", "quotes"],
)
async def test_words_are_found_however_they_are_written(
    scripted: Scripted, actor: Actor, content: str, query: str
) -> None:
    await kept(scripted.memories, actor, "Something else.")
    await kept(scripted.memories, actor, content)

    hits = await scripted.search.search(actor, SearchMemoriesRequest(query=query))

    assert hits[0].content == content
    assert hits[0].word_match > 0.5


async def test_rare_words_count_for_more(scripted: Scripted, actor: Actor) -> None:
    for content in ("The user likes tea.", "The user likes jazz.", "The user has a ferret."):
        await kept(scripted.memories, actor, content)

    hits = await scripted.search.search(actor, SearchMemoriesRequest(query="user ferret tea likes"))

    matches = {hit.content: hit.word_match for hit in hits}
    assert matches["The user has a ferret."] > 1.5 * matches["The user likes jazz."]


async def test_importance_decides_between_equals(scripted: Scripted, actor: Actor) -> None:
    for number, importance in enumerate((0.1, 0.9, 0.5)):
        memory = await kept(scripted.memories, actor, f"Fact {number}", importance=importance)
        assert memory.importance == importance
    scripted.provider.script.append(saying("", status=503))

    hits = await scripted.search.search(actor, SearchMemoriesRequest(query="fact"))

    assert [hit.importance for hit in hits] == [0.9, 0.5, 0.1]


async def test_a_long_query_is_searched_by_some_of_its_words(
    scripted: Scripted, actor: Actor
) -> None:
    await kept(scripted.memories, actor, "Plays the theorbo professionally.")
    query = " ".join([*(f"w{number}" for number in range(300)), "professionally"])

    [hit] = await scripted.search.search(actor, SearchMemoriesRequest(query=query))

    assert hit.word_match > 0


async def test_expired_memories_are_neither_found_nor_used(
    scripted: Scripted, actor: Actor, inspection: Inspection
) -> None:
    memory = await kept(scripted.memories, actor, "Has a dog.", pinned=True)
    vector = await scripted.embedder.embed(["dog"], purpose=Purpose.QUERY)
    assert await found(scripted.search, actor, "dog") == ["Has a dog."]

    await expire(inspection, memory)

    assert await found(scripted.search, actor, "dog") == []
    assert await scripted.search.for_prompt(actor, "dog", vector[0], limit=5) == []
    assert await scripted.memories.get(actor, memory.id) != Err(Unreachable.MISSING)


async def test_a_prompt_gets_all_pinned_memories_before_the_best(
    memories: MemoryService, search: MemorySearch, actor: Actor, other_user: ApiUser
) -> None:
    await kept(memories, actor, "Has a dog called Rex.")
    await kept(memories, actor, "Works as a nurse in Turin.", pinned=True, importance=0.2)
    await kept(memories, actor, "Is afraid of heights.", pinned=True, importance=0.7)
    await kept(memories, actor_of(other_user), "Has a cat.", pinned=True)

    hits = await search.for_prompt(actor, "Has a dog called Rex.", None, limit=1)

    assert [hit.content for hit in hits] == [
        "Is afraid of heights.",
        "Works as a nurse in Turin.",
        "Has a dog called Rex.",
    ]


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
    assert by_new.similarity == pytest.approx(1.0, abs=1e-5)
    assert by_old.similarity is not None
    assert by_old.similarity < 0.99


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
    [hit] = await scripted.search.search(actor, SearchMemoriesRequest(query="Rome"))
    assert (hit.content, hit.similarity) == ("Lives in Rome.", None)
    assert await found(scripted.search, actor, "Oslo") == []


@pytest.mark.parametrize("outage", OUTAGES)
async def test_words_alone_are_searched_while_the_embedder_is_unavailable(
    scripted: Scripted, actor: Actor, outage: str
) -> None:
    for content in ("Lives in Rome.", "Has a dog."):
        await kept(scripted.memories, actor, content)
    before = MEMORIES_WITHOUT_VECTORS._value.get()
    scripted.provider.script.append(OUTAGES[outage])

    assert await found(scripted.search, actor, "Rome") == ["Lives in Rome."]
    assert MEMORIES_WITHOUT_VECTORS._value.get() == before + 1


async def test_content_changed_while_the_embedder_is_unavailable_keeps_no_old_vector(
    inspection: Inspection, scripted: Scripted, actor: Actor
) -> None:
    memories = scripted.memories
    memory = await kept(memories, actor, "Lives in Rome.")
    scripted.provider.script.append(saying("", status=503))

    change = ChangeMemoryRequest(content="Lives in Oslo.")
    await memories.change(actor, memory.id, change, versions=None)

    assert await found(scripted.search, actor, "Rome") == []
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

    assert await found(scripted.search, actor, "dog") == ["Embedded by the other."]
    assert await found(stack.services.memories.search, actor, "dog") == ["Embedded by one."]


async def test_relevant_memories_are_near_enough_or_have_the_words(
    memories: MemoryService, search: MemorySearch, actor: Actor
) -> None:
    for content in ("Has a dog called Rex.", "Works as a nurse in Turin.", "Met Kowalczyk."):
        await kept(memories, actor, content)

    near = await search.search(actor, SearchMemoriesRequest(query="The dog and Kowalczyk"))

    assert {hit.content for hit in near if is_relevant(hit)} == {
        "Has a dog called Rex.",
        "Met Kowalczyk.",
    }


@pytest.mark.parametrize("status", ["suggested", "rejected"])
async def test_only_accepted_memories_are_found(stack: Stack, actor: Actor, status: str) -> None:
    memories, search = stack.services.memories.store, stack.services.memories.search
    await set_status(stack.inspection, await kept(memories, actor, "Has a dog."), status)
    query = await stack.foundation.embedder.embed(["Has a dog."], purpose=Purpose.QUERY)

    assert await found(search, actor, "Has a dog.") == []
    assert await search.for_prompt(actor, "Has a dog.", query[0], limit=5) == []
