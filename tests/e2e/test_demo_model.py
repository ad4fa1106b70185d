"""The demo model of `everturn dev`, as a newcomer without an API key meets it."""

from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.running_everturn.client import Client
from tests.running_everturn.process import EverturnDev, everturn_dev
from tests.running_everturn.waiting import eventually


@pytest.fixture(scope="module")
async def without_key() -> AsyncIterator[EverturnDev]:
    with TemporaryDirectory(prefix="everturn-tests-") as folder:
        where = Path(folder)
        async with everturn_dev(
            where, ephemeral=True, EVERTURN_MEMORY_EXTRACTION="true"
        ) as running:
            yield running


@pytest.fixture
async def newcomer(without_key: EverturnDev) -> AsyncIterator[tuple[EverturnDev, Client]]:
    async with Client.signed_up(without_key.addresses["api"]) as client:
        yield without_key, client


async def answer(client: Client, question: str) -> str:
    answered = await client.send(await client.new_chat(), question)
    return str(answered["assistantMessage"]["content"])


async def test_it_calculates_remembers_and_quotes_memories_and_documents(
    newcomer: tuple[EverturnDev, Client],
) -> None:
    everturn, client = newcomer
    title, content = "Tortoise care", "Tortoises eat hay, clover and dandelions."

    calculated = await answer(client, "What is 6 * 7?")
    remembered = await answer(client, "Remember that my tortoise is called Ada.")
    document = await client.api.knowledge.create(title=title, content=content)

    async def ingestion() -> str:
        return (await client.api.knowledge.get(document.id)).ingestion.status

    await eventually(ingestion, lambda status: status == "ready")
    await client.api.knowledge.publish(document.id)
    by_memory = await answer(client, "What is my tortoise called?")
    by_document = await answer(client, "Which plants do tortoises eat?")

    assert everturn.pids().keys() >= {"demo-model"}
    assert "6 * 7 = 42" in calculated
    assert "remember" in remembered
    assert "From your memories: “" in by_memory
    assert "Ada" in by_memory
    assert f"From the document “{title}”: “{content}”" in by_document


async def test_it_suggests_memories_and_what_they_replace(
    newcomer: tuple[EverturnDev, Client],
) -> None:
    _, client = newcomer

    async def suggested() -> list[str]:
        found = await client.api.memories.list(status="suggested").first(9)
        return sorted(memory.content for memory in found)

    await answer(client, "My name is Ada and I live in Berlin. Bob says: I love jazz")
    await eventually(suggested, lambda contents: contents == ["Is called Ada.", "Lives in Berlin."])
    for memory in await client.api.memories.list(status="suggested").first(9):
        await client.api.memories.accept(memory.id)
    await answer(client, "I moved to Lisbon.")
    await eventually(suggested, lambda contents: contents == ["Lives in Lisbon."])
    [lisbon] = await client.api.memories.list(status="suggested").first(9)
    await client.api.memories.accept(lisbon.id)

    [berlin] = await client.api.memories.list(status="replaced").first(9)
    assert (berlin.content, berlin.replaced_by_id) == ("Lives in Berlin.", lisbon.id)
    assert lisbon.passage == "I moved to Lisbon"
