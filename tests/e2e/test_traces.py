"""A turn's trace, as a collector receives it from all processes."""

import uuid

from temporalio.client import Client as TemporalClient
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from tests.fixtures.collector import Collector, Received
from tests.running_everturn.client import Client
from tests.running_everturn.model import ModelControl
from tests.running_everturn.process import EverturnDev
from workflows.chat_turn import ChatTurn
from workflows.trace_header import TRACE_HEADER

PARTS = {"chat claude-haiku-5-5", "execute_tool calculator", "invoke_agent everturn"}
SECRET = "heliotrope"


def names_of(received: list[Received]) -> list[str]:
    return sorted(each.span.name for each in received)


async def test_a_turn_is_one_trace_from_its_request_to_its_tools(
    client: Client, collector: Collector
) -> None:
    async with client.ask("What is 6 * 7?") as stream:
        await stream.to_end()

    request = "POST /api/v1/chats/{chat_id}/messages"
    spans = await collector.until(
        stream.turn_id, lambda spans: {*PARTS, request} <= set(names_of(spans))
    )

    by_name = {each.span.name: each for each in spans}
    root, turn = by_name[request], by_name["invoke_agent everturn"]
    assert (root.service, turn.service) == ("everturn-api", "everturn-worker")
    assert turn.span.parent_span_id == root.span.span_id
    assert names_of(spans) == sorted([*PARTS, request, "chat claude-haiku-5-5"])
    for each in spans:
        assert each is root or each is turn or each.span.parent_span_id == turn.span.span_id
        assert each.span.start_time_unix_nano < each.span.end_time_unix_nano
    stored = await client.turn(stream.turn_id)
    assert turn.attributes["everturn.status"] == "completed"
    assert turn.attributes["gen_ai.usage.output_tokens"] == stored["usage"]["outputTokens"]
    assert by_name["execute_tool calculator"].attributes["everturn.status"] == "completed"


async def test_a_failed_turn_is_an_error_without_content(
    client: Client, collector: Collector, model: ModelControl
) -> None:
    await model.script(match=SECRET, status=401, message=f"No {SECRET} here.")
    async with client.ask(f"Say {SECRET}.") as stream:
        await stream.to_end()

    spans = await collector.until(
        stream.turn_id, lambda spans: "invoke_agent everturn" in names_of(spans)
    )

    errors = {each.span.name: each.attributes.get("error.type") for each in spans}
    assert errors["invoke_agent everturn"] == "MODEL_REJECTED"
    assert errors["chat claude-haiku-5-5"] == "ModelFailed"
    assert not any(SECRET.encode() in body for body in collector.bodies)


async def test_a_client_that_began_a_trace_finds_the_turn_in_it(
    client: Client, collector: Collector
) -> None:
    trace_id, parent = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    chat_id = await client.new_chat()

    sent = await client.request(
        "POST",
        f"/chats/{chat_id}/messages",
        {"content": "Hello"},
        traceparent=f"00-{trace_id}-{parent}-01",
    )

    spans = await collector.until(
        sent.json()["data"]["turn"]["id"], lambda spans: "invoke_agent everturn" in names_of(spans)
    )
    assert {each.span.trace_id.hex() for each in spans} == {trace_id}


async def test_a_turn_that_no_request_started_is_a_trace_by_its_own_id(
    client: Client, collector: Collector, model: ModelControl
) -> None:
    chat_id = await client.new_chat()
    await model.script(match="the first", pieces=["One."], hold="first", hold_after=0)
    async with client.ask("the first", chat_id=chat_id) as first:
        async with client.ask("the second", chat_id=chat_id, if_busy="enqueue") as second:
            await model.release("first")
            await second.to_end()
        await first.to_end()

    spans = await collector.until(
        second.turn_id, lambda spans: "invoke_agent everturn" in names_of(spans)
    )
    assert {each.span.trace_id.hex() for each in spans} == {second.turn_id.replace("-", "")}


async def test_a_traced_turn_can_be_replayed_by_a_worker_that_does_not_trace(
    client: Client, everturn: EverturnDev
) -> None:
    async with client.ask("What is 7 * 6?") as stream:
        await stream.to_end()
    temporal = await TemporalClient.connect(
        everturn.addresses["temporal"], data_converter=pydantic_data_converter
    )
    handle = temporal.get_workflow_handle(f"turn-{stream.turn_id}")
    await handle.result()
    history = await handle.fetch_history()

    replayer = Replayer(
        workflows=[ChatTurn],
        data_converter=pydantic_data_converter,
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    replayed = await replayer.replay_workflow(history)

    started = history.events[0].workflow_execution_started_event_attributes
    assert TRACE_HEADER in started.header.fields
    assert replayed.replay_failure is None
