"""Whether a deployed Everturn works at all: `make smoke URL=https://chat.example.com`.

Whatever model it asks, within the rate limits of a free plan, and leaving nothing behind.
"""

import pytest

from everturn_client import NotFoundError
from tests.running_everturn.checks import assert_stream_is_whole
from tests.running_everturn.client import Client, names
from tests.running_everturn.waiting import eventually


async def test_it_is_ready_and_so_is_everything_that_it_needs(client: Client) -> None:
    health = (await client.request("GET", "/health/ready")).json()["data"]

    needed = dict.fromkeys(("status", "database", "redis", "temporal"), "ok")
    assert health == {**needed, "problems": []}


async def test_it_describes_itself(client: Client, api_url: str) -> None:
    response = await client.request("GET", f"{api_url}/openapi.json")

    assert response.json()["info"]["title"] == "Everturn"


async def test_a_turn_is_streamed_stored_and_resumed(client: Client) -> None:
    async with client.ask("What is 6 * 7?") as stream:
        events = await stream.to_end()

    assert "42" in await assert_stream_is_whole(client, stream.turn_id, events)
    assert names(events)[0] == "turn"
    resumed = await client.events(stream.turn_id, after=events[0].id)
    assert resumed[-1].data == events[-1].data
    turn = await client.turn(stream.turn_id)
    assert turn["usage"]["inputTokens"] > 0
    await client.api.chats.delete(turn["chatId"])


async def test_a_document_is_ingested_found_and_deleted(client: Client) -> None:
    text = "The lighthouse of Vlissingen is painted green and white."
    document = await client.api.knowledge.create(title="Lighthouses", content=text)

    async def ingestion() -> str:
        return (await client.api.knowledge.get(document.id)).ingestion.status

    await eventually(ingestion, lambda status: status == "ready")
    hits = await client.api.knowledge.search("What colour is the lighthouse?")
    await client.api.knowledge.delete(document.id)

    assert text in str(hits)
    with pytest.raises(NotFoundError):
        await client.api.knowledge.get(document.id)


async def test_a_stranger_gets_nothing(client: Client) -> None:
    response = await client.request("GET", "/chats", token="not a token")

    assert response.status_code == 401
