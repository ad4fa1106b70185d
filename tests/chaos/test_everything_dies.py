"""The machine goes down in mid-stream: the turn completes after the next start."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.checks import assert_paid_for, assert_stream_is_whole
from tests.running_everturn.client import Client
from tests.running_everturn.stack import scripted_model, scripted_stack


@pytest.fixture
def data() -> Iterator[Path]:
    # Not tmp_path: pytest closes the folder above it to other users, but the user that root runs
    # Postgres as must be able to traverse it.
    with tempfile.TemporaryDirectory(prefix="everturn-tests-") as folder:
        yield Path(folder) / "data"


async def test_a_turn_survives_kill_9_of_everything_at_once(data: Path) -> None:
    async with scripted_model() as (model, url):
        model.add(Script(match="all", pieces=("Be", "fore"), hold="never", hold_after=1))
        model.add(Script(match="all", pieces=("After ", "all.")))

        async with (
            scripted_stack(model, url, data_dir=data) as everturn,
            Client.signed_up(everturn.api) as client,
            client.ask("all dies") as stream,
        ):
            await stream.until_text("Be")
            everturn.stack.kill_all()
            seen = await stream.until_broken()

        async with (
            scripted_stack(model, url, data_dir=data) as everturn,
            Client.signed_in(everturn.api, client.email) as client,
        ):
            rest = await client.events(stream.turn_id, after=stream.last_id)
            answer = await assert_stream_is_whole(client, stream.turn_id, [*seen, *rest])
            charges = await assert_paid_for(everturn, stream.turn_id, "all dies")

    assert answer == "After all."
    assert [charge["status"] for charge in charges] == ["lost", "settled"]
