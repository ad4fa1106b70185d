"""A user who starts hundreds of turns at once, and waits for them; others hardly notice."""

from collections.abc import AsyncIterator
from statistics import median
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.load.client import LoadClient
from tests.load.samples import Request
from tests.running_everturn.bystanders import Bystanders, Others
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack

_TURNS: Final = 200
_OVER_S: Final = 2.0
"""Within which they are sent: an API process takes some 100 messages a second."""
_PART: Final = 6
"""Others wait for a part of what the crowd waits; first in, first out, for more than half of it."""


@pytest.fixture
async def crowd() -> AsyncIterator[LoadClient]:
    """A client in a process of its own, so that its work delays no one's measurements."""
    client = await LoadClient.start()
    yield client
    await client.stop()


async def test_turns_of_others_go_ahead_of_a_users_200(
    everturn: ScriptedStack,
    client: Client,
    *,
    crowd: LoadClient,
    bystanders: Bystanders,
    others: Others,
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

    async with others(f"{_TURNS} turns of one user"):
        waited = await crowd.run(messages, concurrency=_TURNS, spread_s=_OVER_S)

    noticed = bystanders.last
    crowds_own = median(sample.first_ms for sample in waited)
    print(
        f"the crowd itself waited {crowds_own:.0f} ms, others {noticed.first_token_p50_ms:.0f} ms"
    )
    assert noticed.first_token_p50_ms < crowds_own / _PART
