"""The search of knowledge: by meaning and by words."""

import asyncio
import math
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

from schema.actors import Actor, acting_user
from schema.ids import UserId
from schema.knowledge_search import KnowledgeHit, SearchKnowledgeRequest
from services.database import Database, DatabaseUnavailableError
from services.embeddings import Embedder, Purpose, make_embedder
from services.knowledge.search import KnowledgeSearch
from tests.fakes.embedding_api import EmbeddingApi, saying, serving, vector_of
from tests.fixtures.api_user import ApiUser
from tests.fixtures.passages import NewPassage, add_document, add_version, publish, word
from tests.fixtures.stack import Stack

DIMENSIONS = 8


@pytest.fixture
def api() -> EmbeddingApi:
    """The provider of the embeddings."""
    return EmbeddingApi()


@pytest.fixture
async def embedder(api: EmbeddingApi) -> AsyncIterator[Embedder]:
    """An embedder that no other test has."""
    async with serving(api) as origin:
        made = make_embedder(
            "openai",
            model=f"model-{uuid4().hex}",
            base_url=f"{origin}/compatible",
            dimensions=DIMENSIONS,
        )
        yield made
        await made.close()


@pytest.fixture
def search(stack: Stack, embedder: Embedder) -> KnowledgeSearch:
    """The search with that embedder."""
    return KnowledgeSearch(stack.foundation.database, embedder)


def actor_of(person: ApiUser) -> Actor:
    return acting_user(UserId(UUID(person.id)))


def meant(text: str, embedder: Embedder, *, content: str | None = None) -> NewPassage:
    """Return a passage with the vector of `text`."""
    return NewPassage(content or text, vector_of(text, DIMENSIONS), embedder.name)


async def found(
    search: KnowledgeSearch, person: ApiUser, query: str, limit: int = 10
) -> list[KnowledgeHit]:
    return await search.search(actor_of(person), SearchKnowledgeRequest(query=query, limit=limit))


async def contents(search: KnowledgeSearch, person: ApiUser, query: str) -> list[str]:
    return [hit.content for hit in await found(search, person, query)]


async def test_a_hit_names_its_source(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, embedder: Embedder
) -> None:
    text = f"about {word()}"
    document = await add_document(stack.inspection, user.id, meant(text, embedder), title="Rules")

    (hit,) = await found(search, user, text)

    assert (hit.document_id, hit.title, hit.version, hit.position) == (document, "Rules", 1, 0)
    assert (hit.content, hit.start_char, hit.end_char) == (text, 0, len(text))
    assert hit.score == 1.0
    assert hit.own


async def test_others_find_only_published_documents(
    stack: Stack, user: ApiUser, other_user: ApiUser, *, search: KnowledgeSearch, embedder: Embedder
) -> None:
    name = word()
    document = await add_document(stack.inspection, user.id, meant(f"first {name}", embedder))
    await add_version(stack.inspection, document, 2, meant(f"second {name}", embedder))

    before = await contents(search, other_user, name)
    await publish(stack.inspection, document, 1)
    after = await found(search, other_user, name)
    await publish(stack.inspection, document, None)
    withdrawn = await contents(search, other_user, name)

    assert before == withdrawn == []
    assert [(hit.content, hit.own) for hit in after] == [(f"first {name}", False)]


async def test_owners_find_one_version_of_each_document(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, embedder: Embedder
) -> None:
    name = word()
    document = await add_document(stack.inspection, user.id, meant(f"first {name}", embedder))
    await add_version(stack.inspection, document, 2, meant(f"second {name}", embedder))
    await add_version(
        stack.inspection, document, 3, meant(f"third {name}", embedder), status="processing"
    )

    as_draft = await contents(search, user, name)
    await publish(stack.inspection, document, 1)
    as_published = await contents(search, user, name)

    assert as_draft == [f"second {name}"]
    assert as_published == [f"first {name}"]


async def test_matches_by_meaning_or_words_are_found_and_matches_by_both_rank_first(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, embedder: Embedder
) -> None:
    query = f"about {word()}"
    await add_document(
        stack.inspection,
        user.id,
        meant(query, embedder, content="by meaning alone"),
        NewPassage(f"{query} by words alone"),
        meant(query, embedder, content=f"{query} by both"),
    )

    hits = await found(search, user, query)

    assert hits[0].content == f"{query} by both"
    assert {hit.content for hit in hits[1:]} == {"by meaning alone", f"{query} by words alone"}
    assert all(0 < hit.score <= 1 for hit in hits)
    assert hits == await found(search, user, query)


async def test_two_rankings_are_merged_by_reciprocal_rank_fusion(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, embedder: Embedder
) -> None:
    query = f"about {word()}"
    vector = vector_of(query, DIMENSIONS)
    await add_document(
        stack.inspection,
        user.id,
        meant(query, embedder, content=f"{query}, {query} by both"),
        NewPassage("second by meaning", towards(vector, 0.9), embedder.name),
        NewPassage(f"{query}, and second by words"),
        NewPassage("third by meaning", towards(vector, 0.8), embedder.name),
    )

    first, *equals, last = await found(search, user, query)
    by_words = await search.relevant(actor_of(user), query, None, limit=10)

    assert (first.content, first.score) == (f"{query}, {query} by both", 1.0)
    assert [hit.score for hit in equals] == [pytest.approx(61 / 62 / 2)] * 2
    assert equals == sorted(equals, key=lambda hit: hit.passage_id)
    assert last.content == "third by meaning"
    assert last.score == pytest.approx(61 / 63 / 2)
    assert [hit.score for hit in by_words] == [1.0, pytest.approx(61 / 62)]


async def test_a_vector_without_a_direction_is_near_to_nothing(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, embedder: Embedder
) -> None:
    name = word()
    document = await add_document(
        stack.inspection,
        user.id,
        NewPassage(f"{name} without a direction", [0.0] * DIMENSIONS, embedder.name),
        NewPassage("nothing at all", [0.0] * DIMENSIONS, embedder.name),
        meant("something else", embedder),
    )

    async def found_with(vector: list[float]) -> list[str]:
        hits = await search.relevant(actor_of(user), name, vector, limit=10)
        return [hit.content for hit in hits]

    for published in (None, 1):
        await publish(stack.inspection, document, published)
        assert await found_with([0.0] * DIMENSIONS) == [f"{name} without a direction"]
        assert set(await found_with(vector_of("something else", DIMENSIONS))) == {
            *("something else", f"{name} without a direction")
        }
    await publish(stack.inspection, document, None)


def towards(vector: list[float], cosine: float) -> list[float]:
    """Return a vector that is as near to this one as that."""
    length = math.hypot(*vector)
    along = [number / length for number in vector]
    # Any direction does: what of it is along the vector is taken away.
    other = [float(place == 0) - along[0] * number for place, number in enumerate(along)]
    sine = math.sqrt(1 - cosine**2) / math.hypot(*other)
    return [cosine * a + sine * o for a, o in zip(along, other, strict=True)]


async def test_unrelated_passages_are_not_found_and_prompts_need_a_higher_score(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, embedder: Embedder
) -> None:
    query = f"about {word()}"
    vector = vector_of(query, DIMENSIONS)
    document = await add_document(
        stack.inspection,
        user.id,
        *(
            NewPassage(str(near), towards(vector, near), embedder.name)
            for near in (0.18, 0.22, 0.27)
        ),
        NewPassage(f"{query} by words", towards(vector, 0.0), embedder.name),
    )

    async def found_by_both() -> tuple[set[str], set[str]]:
        in_prompt = await search.relevant(actor_of(user), query, vector, limit=10)
        return set(await contents(search, user, query)), {hit.content for hit in in_prompt}

    by_words = f"{query} by words"
    assert await found_by_both() == ({"0.22", "0.27", by_words}, {"0.27", by_words})
    await publish(stack.inspection, document, 1)
    assert await found_by_both() == ({"0.22", "0.27", by_words}, {"0.27", by_words})


@pytest.mark.parametrize("query", ["hello", "what is love", "asdkjh qwe", "Tell me a joke"])
async def test_a_published_manual_is_not_in_the_prompt_of_a_message_about_something_else(
    stack: Stack, user: ApiUser, other_user: ApiUser, query: str
) -> None:
    model = make_embedder("embedded")
    manual = "Zebra manual. Feed the zebra hay twice a day and keep its hooves clean."
    [vector] = await model.embed([manual], purpose=Purpose.DOCUMENT)
    document = await add_document(
        stack.inspection, other_user.id, NewPassage(manual, vector, model.name)
    )
    await publish(stack.inspection, document, 1)
    search = KnowledgeSearch(stack.foundation.database, model)

    async def documents_for(text: str) -> set[UUID]:
        [asked] = await model.embed([text], purpose=Purpose.QUERY)
        in_prompt = await search.relevant(actor_of(user), text, asked, limit=50)
        in_search = await found(search, user, text, limit=50)
        return {hit.document_id for hit in in_prompt} | {hit.document_id for hit in in_search}

    assert document in await documents_for("What do striped animals eat, zebras among them?")
    assert document not in await documents_for(query)
    await publish(stack.inspection, document, None)


async def test_a_document_is_found_while_its_publication_changes(
    stack: Stack, user: ApiUser, search: KnowledgeSearch
) -> None:
    name, inspection = word(), stack.inspection
    document = await add_document(inspection, user.id, NewPassage(name))
    await publish(inspection, document, 1)

    # The search has begun, with a published document, and waits for the passages.
    await inspection.execute("BEGIN")
    await inspection.execute("LOCK TABLE passages IN ACCESS EXCLUSIVE MODE")
    searching = asyncio.create_task(search.relevant(actor_of(user), name, None, limit=5))
    async with asyncio.timeout(10):
        while not await searches_that_wait(stack):
            assert not searching.done()
    await publish(inspection, document, None)
    await inspection.execute("COMMIT")

    assert [hit.content for hit in await searching] == [name]


async def searches_that_wait(stack: Stack) -> int:
    """Return how many searches wait for a lock. What they do is cached in a transaction."""
    await stack.inspection.execute("SELECT pg_stat_clear_snapshot()")
    return int(
        await stack.inspection.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND query LIKE '%websearch_to_tsquery%' AND datname = current_database()"
        )
    )


async def test_vectors_of_another_embedder_are_not_compared(
    stack: Stack, user: ApiUser, search: KnowledgeSearch
) -> None:
    query = f"about {word()}"
    await add_document(
        stack.inspection,
        user.id,
        NewPassage("of another model", vector_of(query, DIMENSIONS), "another"),
        NewPassage("of another size", vector_of(query, 3), "third"),
        NewPassage("of nobody"),
    )

    assert await contents(search, user, query) == []


async def test_words_alone_give_results_while_the_embedder_is_unavailable(
    stack: Stack, user: ApiUser, api: EmbeddingApi, *, search: KnowledgeSearch, embedder: Embedder
) -> None:
    query = f"about {word()}"
    await add_document(
        stack.inspection,
        user.id,
        meant(query, embedder, content="by meaning"),
        NewPassage(f"{query} by words"),
    )

    api.script = [saying("busy", status=503), saying("no", status=401)]
    before = REGISTRY.get_sample_value("everturn_knowledge_searches_without_vectors_total") or 0

    assert await contents(search, user, query) == [f"{query} by words"]
    assert await contents(search, user, query) == [f"{query} by words"]
    assert len(await contents(search, user, query)) == 2
    after = REGISTRY.get_sample_value("everturn_knowledge_searches_without_vectors_total")
    assert after == before + 2


@pytest.mark.parametrize(
    "query",
    [
        "the of and",
        "%",
        "_ % \\ ' \" :* & | ! ( ) <->",
        "-nothing",
        '"',
        "שלום עולם",
        "مرحبا بالعالم",
        "日本語の文章",
        "🙂",
        "a" * 2000,
        "'; DROP TABLE passages; --",
        "x " * 1000,
    ],
)
async def test_any_query_gets_an_answer(user: ApiUser, search: KnowledgeSearch, query: str) -> None:
    assert await found(search, user, query) == []


async def test_a_turn_finds_the_same_with_and_without_a_vector(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, embedder: Embedder
) -> None:
    text = f"about {word()}"
    document = await add_document(stack.inspection, user.id, meant(text, embedder), title="Rules")
    [vector] = await embedder.embed([text], purpose=Purpose.QUERY)

    by_both = await search.relevant(actor_of(user), text, vector, limit=5)
    by_words = await search.relevant(actor_of(user), text + " " * 4000, None, limit=5)

    assert [(hit.document_id, hit.title, hit.content) for hit in by_both] == [
        (document, "Rules", text)
    ]
    assert by_both == by_words


async def test_an_outage_of_the_database_is_reported_as_one(
    user: ApiUser, embedder: Embedder
) -> None:
    nowhere = Database("postgresql://nobody:nothing@127.0.0.1:9/nothing")
    search = KnowledgeSearch(nowhere, embedder)

    with pytest.raises(DatabaseUnavailableError):
        await found(search, user, "anything")
    await nowhere.close()
