"""A user who starts a hundred turns at once, and waits for them; others hardly notice."""

from collections.abc import AsyncIterator
from statistics import median
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.load.client import LoadClient, Request
from tests.running_everturn.bystanders import Bystanders, Others
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack

_TURNS: Final = 100
CROWD: Final = f"{_TURNS} turns of one user"
_OVER_S: Final = 1.0
"""Within which they are sent: an API process takes some 100 messages a second."""
_PART: Final = 6
"""Others wait for a part of what the crowd waits; first in, first out, for more than half of it."""


@pytest.fixture
async def crowd() -> AsyncIterator[LoadClient]:
    """A client in a process of its own, so that its work delays no one's measurements."""
    client = await LoadClient.start()
    yield client
    await client.stop()


async def test_turns_of_others_go_ahead_of_a_users_hundred(
    everturn: ScriptedStack,
    client: Client,
    *,
    crowd: LoadClient,
    bystanders: Bystanders,
) -> None:
    port = urlsplit(everturn.api).port or 0
    new = Request(port, "/api/v1/chats", "POST", client.token, {"title": "A crowd"})
    chats = await crowd.run([new] * _TURNS, concurrency=4)
    messages = [
        Request(
            port,
            f"/api/v1/chats/{chat.data['id']}/messages",
            "POST",
            client.token,
            {"content": "How are you?", "stream": True},
        )
        for chat in chats
    ]

    async with bystanders.during(CROWD):
        waited = await crowd.run(messages, concurrency=_TURNS, spread_s=_OVER_S)

    others_own = median(bystanders.noticed[CROWD].first_tokens)
    crowds_own = median(sample.first_ms for sample in waited)
    print(f"the crowd itself waited {crowds_own:.0f} ms, others {others_own:.0f} ms")
    assert others_own < crowds_own / _PART


async def test_one_more_ordinary_user_is_what_attacks_are_compared_with(
    client: Client, others: Others
) -> None:
    chat = await client.new_chat()

    async with others("one more ordinary user") as more:
        while await more():
            assert (await client.send(chat, "Hello"))["assistantMessage"]["content"]
