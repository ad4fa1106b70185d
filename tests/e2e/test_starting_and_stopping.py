"""`everturn dev` stops whole, and finds its data again."""

import signal
from pathlib import Path

from redis.asyncio import Redis
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus

from tests.running_everturn.checks import assert_stream_is_whole
from tests.running_everturn.client import Client
from tests.running_everturn.process import everturn_dev, still_running


async def test_a_second_start_finds_the_chat_of_the_first_and_both_leave_nothing_running(
    folder: Path,
) -> None:
    async with everturn_dev(folder) as everturn:
        first = everturn.addresses
        async with (
            Client.signed_up(first["api"]) as client,
            client.ask("What is 6 * 7?") as stream,
        ):
            answer = await assert_stream_is_whole(client, stream.turn_id, await stream.to_end())
        family = everturn.family()
        assert await everturn.stop(signal.SIGTERM) == 0
    assert still_running(family) == []
    assert not (folder / "data" / "addresses.json").exists()

    async with everturn_dev(folder) as everturn:
        assert everturn.addresses["database"] == first["database"]
        assert everturn.addresses["redis"] == first["redis"]
        async with Redis.from_url(everturn.addresses["redis"]) as valkey:
            await valkey.flushall()
        async with Client.signed_in(everturn.addresses["api"], client.email) as client:
            chat_id = (await client.turn(stream.turn_id))["chatId"]
            assert [message["content"] for message in await client.messages(chat_id)] == [
                "What is 6 * 7?",
                answer,
            ]
            replayed = await client.events(stream.turn_id)
            assert await assert_stream_is_whole(client, stream.turn_id, replayed) == answer
            once_more = await client.send(chat_id, "What is 7 * 7?")
            assert "7 * 7 = 49" in once_more["assistantMessage"]["content"]
        temporal = await TemporalClient.connect(everturn.addresses["temporal"])
        run = await temporal.get_workflow_handle(f"turn-{stream.turn_id}").describe()
        assert run.status is WorkflowExecutionStatus.COMPLETED
        family = everturn.family()
        assert await everturn.stop(signal.SIGINT) == 0
    assert still_running(family) == []
