"""A turn that waits for its user for longer than any timeout of a proxy: only comments pass."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.api_user import ApiUser
from tests.fixtures.event_stream import rebuild
from tests.fixtures.proxies import NAMES, running_proxy
from tests.fixtures.stack import Stack
from tests.fixtures.tool_settings import changed_settings
from tests.integration.test_approvals import Asked, decide

COMMENTS = 6
"""One after each 15 s of silence: 90 s in all, where the longest timeout of a proxy is 75 s."""


@pytest.fixture
async def asking(admin: ApiUser) -> AsyncIterator[None]:
    """The calculator waits for approval."""
    async with changed_settings(admin, "calculator", approval="ask"):
        yield


@pytest.mark.usefixtures("asking")
@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_survives_a_long_silence(
    name: str, tmp_path: Path, stack: Stack, user: ApiUser
) -> None:
    async with (
        running_proxy(name, tmp_path, stack.origin) as proxy,
        proxy.client() as client,
        Asked(stack, ApiUser(client, user.session, email=user.email)) as asked,
    ):
        before = asked.stream.comments
        for _ in range(COMMENTS):
            await asked.stream.comment()
        await decide(user, asked.turn_id, decision="approve")
        events = await asked.rest()

    assert asked.stream.comments >= before + COMMENTS
    assert events[-1].data["status"] == "completed"
    assert rebuild(events) == "I see."
