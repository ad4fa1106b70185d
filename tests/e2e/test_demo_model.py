"""The demo model of `everturn dev`, as a newcomer without an API key meets it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.running_everturn.client import Client
from tests.running_everturn.process import EverturnDev, everturn_dev
from tests.running_everturn.waiting import eventually


@pytest.fixture
async def newcomer(folder: Path) -> AsyncIterator[tuple[EverturnDev, Client]]:
    async with (
        everturn_dev(folder, ephemeral=True) as everturn,
        Client.signed_up(everturn.addresses["api"]) as client,
    ):
        yield everturn, client


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
