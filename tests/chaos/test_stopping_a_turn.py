"""Stop means stop, at the provider's socket."""

import time

import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.checks import assert_paid_for, assert_stream_is_whole
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack


@pytest.mark.parametrize("stopped", [None, "valkey"], ids=["all is well", "redis is away"])
async def test_a_cancelled_turn_hangs_up_on_the_provider_and_keeps_its_text(
    everturn: ScriptedStack, client: Client, stopped: str | None
) -> None:
    question = f"stop me while {stopped} is away"
    everturn.model.add(
        Script(match=question, pieces=("Half ", "an ", "answer"), hold="never", hold_after=2)
    )

    async with client.ask(question) as stream:
        await stream.until_text("Half an ")
        (record,) = everturn.model.requests_matching(question)
        if stopped is not None:
            await everturn.stack.stop(stopped)
        asked_at = time.monotonic()
        await client.cancel(stream.turn_id)
        await everturn.model.wait_until(lambda: record.ended)
        events = await stream.to_end()

    assert record.disconnected_at is not None
    print(f"hung up {record.disconnected_at - asked_at:.2f} s after the wish to stop")
    answer = await assert_stream_is_whole(client, stream.turn_id, events, status="cancelled")
    assert answer == "Half an "
    (charge,) = await assert_paid_for(everturn, stream.turn_id, question)
    assert charge["status"] == "cancelled"
    assert charge["input_tokens"] == record.usage.input_tokens
    assert charge["output_tokens"] > 0


async def test_a_cancellation_holds_while_temporal_is_unavailable(
    everturn: ScriptedStack, client: Client
) -> None:
    question = "stop me without temporal"
    everturn.model.add(Script(match=question, pieces=("Half ", "an"), hold="never", hold_after=1))

    async with client.ask(question) as stream:
        await stream.until_text("Half ")
        (record,) = everturn.model.requests_matching(question)
        await everturn.stack.stop("temporal")
        await client.cancel(stream.turn_id)
        await everturn.stack.start("temporal")
        await everturn.model.wait_until(lambda: record.ended, timeout_s=60)
        events = await stream.to_end()

    assert record.disconnected_at is not None
    answer = await assert_stream_is_whole(client, stream.turn_id, events, status="cancelled")
    assert answer == "Half "
    await assert_paid_for(everturn, stream.turn_id, question)
