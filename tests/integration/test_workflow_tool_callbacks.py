"""Deferred answers: verified by signature, stored once, and delivered to the turn."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.tool_callbacks import CallbackActivities
from api.temporal_gateway import TemporalGateway
from schema.names import BACKGROUND_QUEUE
from schema.sweeps import SweepInput, SweepPart
from schema.tool_callbacks import AnsweredCall
from schema.turns import RunToolOutput, ToolCallStatus
from services.events.writer import stream_key
from services.tools.definition import DEFAULT_MAX_OUTPUT_CHARS
from services.tools.masks import MASK
from services.workflow_tools.callbacks import CallbackDelivery
from tests.fakes.webhook_engine import SECRET, WebhookEngine, call_back, later
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack
from tests.fixtures.waiting_turns import Waiting, begin_to_wait, working
from tests.fixtures.workflow_tools import (
    RunningCall,
    calling,
    engine_for,
    register_tool,
    running_call,
)
from workers.composition.temporal import connect_temporal
from workflows.sweep import Sweep


@pytest.fixture
async def engine(stack: Stack) -> AsyncIterator[WebhookEngine]:
    """A workflow engine."""
    async with engine_for(stack) as opened:
        yield opened


@pytest.fixture
async def call(stack: Stack, admin: ApiUser, user: ApiUser, engine: WebhookEngine) -> RunningCall:
    """A call that the engine has taken, to answer it later."""
    tool = await register_tool(admin, engine)
    engine.script(tool.name, later())
    made = await running_call(stack, user, tool)
    async with calling(stack) as calls:
        await calls.run(tool.definition, {"title": "Printer on fire"}, made.execution)
    await made.change("tool_calls", "callback_until = now() + interval '1 minute'")
    return made


async def path_of(call: RunningCall) -> str:
    return f"/tool-callbacks/{(await call.stored())['callback_id']}"


async def answer(http: httpx.AsyncClient, call: RunningCall, said: object) -> httpx.Response:
    return await call_back(http, await path_of(call), said)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({"output": "Ticket 7 was opened."}, ("completed", "Ticket 7 was opened.")),
        ({"output": {"ticket": 7}, "isError": False}, ("completed", '{"ticket":7}')),
        ({"output": "No such customer.", "isError": True}, ("failed", "No such customer.")),
        ({"output": None}, ("completed", "null")),
        ({"output": f"By {SECRET}."}, ("completed", f"By {MASK}.")),
        (b'{"output": "a\\u0000b\\ud800c"}', ("completed", "a\ufffdb\ufffdc")),
    ],
)
async def test_an_answer_is_stored_as_the_outcome_of_its_call(
    http: httpx.AsyncClient, call: RunningCall, said: object, outcome: tuple[str, str]
) -> None:
    response = await answer(http, call, said)

    assert response.status_code == 200
    assert response.json()["data"] == {"status": outcome[0]}
    stored = await call.stored()
    assert (stored["status"], stored["output"]) == outcome
    assert stored["finished_at"] is not None


async def test_a_long_answer_is_cut(http: httpx.AsyncClient, call: RunningCall) -> None:
    await answer(http, call, {"output": "x" * 500_000})

    output = (await call.stored())["output"]
    assert len(output) <= DEFAULT_MAX_OUTPUT_CHARS
    assert "500,000 characters" in output


async def test_followers_of_the_turn_are_notified(
    http: httpx.AsyncClient, call: RunningCall, stack: Stack
) -> None:
    await answer(http, call, {"output": "Done."})

    entries: Any = await stack.foundation.redis.xrange(stream_key(call.input.turn.turn_id))
    ((_, fields),) = entries
    assert fields[b"n"] == b"tool_call"
    assert b'"completed"' in fields[b"d"]
    assert b"Done." in fields[b"d"]


async def test_one_of_many_concurrent_answers_counts(
    http: httpx.AsyncClient, call: RunningCall
) -> None:
    path = await path_of(call)

    responses = await asyncio.gather(
        *(call_back(http, path, {"output": f"answer {number}"}) for number in range(8))
    )

    statuses = sorted(response.status_code for response in responses)
    assert statuses == [200] + [409] * 7
    (taken,) = (number for number in range(8) if responses[number].status_code == 200)
    assert (await call.stored())["output"] == f"answer {taken}"


async def test_the_replay_of_an_answer_is_refused(
    http: httpx.AsyncClient, call: RunningCall
) -> None:
    first = await answer(http, call, {"output": "Done."})

    again = await http.request(
        "POST", first.request.url, content=first.request.content, headers=first.request.headers
    )

    assert again.status_code == 409
    assert again.json()["error"]["code"] == "CONFLICT"


async def test_the_request_to_the_webhook_does_not_count_as_an_answer(
    http: httpx.AsyncClient, call: RunningCall, engine: WebhookEngine
) -> None:
    (got,) = engine.calls[call.tool.name]
    signature = {name: value for name, value in got.headers.items() if name.startswith("webhook-")}

    reflected = await http.post(await path_of(call), content=got.raw, headers=signature)

    assert reflected.status_code == 401


async def test_an_answer_to_one_call_does_not_answer_another_of_the_same_tool(
    http: httpx.AsyncClient, call: RunningCall, stack: Stack, user: ApiUser
) -> None:
    other = await running_call(stack, user, call.tool)
    await other.change("tool_calls", "callback_id = gen_random_uuid()")
    sent = (await answer(http, call, {"output": "Done."})).request

    moved = await http.post(await path_of(other), content=sent.content, headers=sent.headers)

    assert moved.status_code == 401
    assert (await other.stored())["status"] == "running"


@pytest.mark.parametrize(
    ("table", "assignments"),
    [
        ("turns", "status = 'completed'"),
        ("turns", "status = 'cancelled'"),
        ("turns", "cancel_requested_at = now()"),
        ("tool_calls", "status = 'failed', output = 'The turn ended.'"),
        ("tool_calls", "callback_until = now() - interval '1 second'"),
    ],
)
async def test_an_answer_that_is_no_longer_awaited_is_rejected(
    http: httpx.AsyncClient, call: RunningCall, table: str, assignments: str
) -> None:
    await call.change(table, assignments)
    before = await call.stored()

    response = await answer(http, call, {"output": "Done."})

    assert response.status_code == 409
    assert await call.stored() == before


async def test_an_answer_may_arrive_before_the_webhook_responds(
    http: httpx.AsyncClient, call: RunningCall
) -> None:
    await call.change("tool_calls", "callback_until = NULL")

    assert (await answer(http, call, {"output": "Done."})).status_code == 200


async def test_an_answer_by_the_secret_from_before_a_change_is_refused(
    http: httpx.AsyncClient, call: RunningCall, admin: ApiUser
) -> None:
    await admin.request(
        "PATCH",
        f"/admin/workflow-tools/{call.tool.name}",
        json={"secret": "another secret of ours"},
    )

    old = await answer(http, call, {"output": "Done."})
    new = await call_back(
        http, await path_of(call), {"output": "Done."}, secret="another secret of ours"
    )

    assert (old.status_code, new.status_code) == (401, 200)


async def test_callbacks_of_a_deleted_tool_are_rejected(
    http: httpx.AsyncClient, call: RunningCall, admin: ApiUser
) -> None:
    await admin.request("DELETE", f"/admin/workflow-tools/{call.tool.name}")

    assert (await answer(http, call, {"output": "Done."})).status_code == 404


async def test_a_call_of_a_deleted_chat_is_gone(
    http: httpx.AsyncClient, call: RunningCall, stack: Stack
) -> None:
    path = await path_of(call)
    await stack.inspection.execute("DELETE FROM chats WHERE id = $1", call.things.chat)

    assert (await call_back(http, path, {"output": "Done."})).status_code == 404


@pytest.fixture
async def waiting(
    stack: Stack, call: RunningCall
) -> AsyncIterator[WorkflowHandle[Waiting, RunToolOutput]]:
    """A workflow that waits for the call's answer."""
    queue = f"waiting-{uuid4()}"
    async with working(stack, queue) as delivery:
        yield await begin_to_wait(stack, call, queue, delivery)


async def result_of(handle: WorkflowHandle[Waiting, RunToolOutput]) -> RunToolOutput:
    async with asyncio.timeout(20):
        return await handle.result()


async def test_a_waiting_turn_continues_with_the_answer(
    http: httpx.AsyncClient, call: RunningCall, waiting: WorkflowHandle[Waiting, RunToolOutput]
) -> None:
    response = await answer(http, call, {"output": "No.", "isError": True})

    assert response.status_code == 200
    assert await result_of(waiting) == RunToolOutput(status=ToolCallStatus.FAILED)


async def test_an_answer_that_arrives_while_no_worker_runs_is_not_lost(
    http: httpx.AsyncClient, call: RunningCall, stack: Stack
) -> None:
    queue = f"waiting-{uuid4()}"
    async with working(stack, queue) as delivery:
        handle = await begin_to_wait(stack, call, queue, delivery)

    response = await answer(http, call, {"output": "Done."})

    async with working(stack, queue):
        assert await result_of(handle) == RunToolOutput(status=ToolCallStatus.COMPLETED)
    assert response.status_code == 200


async def test_an_answer_from_before_the_wait_is_found(
    http: httpx.AsyncClient, call: RunningCall, stack: Stack
) -> None:
    await answer(http, call, {"output": "Done."})
    activities = CallbackActivities(stack.temporal, CallbackDelivery(stack.foundation.database))

    found = await ActivityEnvironment().run(activities.await_callback, call.input)

    assert found == RunToolOutput(status=ToolCallStatus.COMPLETED)


async def test_waiting_for_a_call_that_was_deleted_ends(call: RunningCall, stack: Stack) -> None:
    await stack.inspection.execute("DELETE FROM chats WHERE id = $1", call.things.chat)
    activities = CallbackActivities(stack.temporal, CallbackDelivery(stack.foundation.database))

    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(activities.await_callback, call.input)

    assert raised.value.non_retryable


async def test_an_undelivered_answer_is_delivered_by_the_sweep(
    stack: Stack, call: RunningCall, waiting: WorkflowHandle[Waiting, RunToolOutput]
) -> None:
    # As if Temporal had been away when the answer came.
    await call.change("tool_calls", "status = 'completed', output = 'Done.', finished_at = now()")

    async with asyncio.timeout(30):
        outcome = await stack.temporal.execute_workflow(
            Sweep.run,
            SweepInput(parts=(SweepPart.ANSWERS,)),
            id=f"sweep-{uuid4()}",
            task_queue=BACKGROUND_QUEUE,
        )

    assert outcome.handled == {SweepPart.ANSWERS: 1}
    assert await result_of(waiting) == RunToolOutput(status=ToolCallStatus.COMPLETED)


async def test_a_turn_is_not_signalled_twice(stack: Stack, call: RunningCall) -> None:
    await call.change("tool_calls", "status = 'completed', output = 'Done.', finished_at = now()")

    async with asyncio.timeout(30):
        outcome = await stack.temporal.execute_workflow(
            Sweep.run,
            SweepInput(parts=(SweepPart.ANSWERS,)),
            id=f"sweep-{uuid4()}",
            task_queue=BACKGROUND_QUEUE,
        )

    assert outcome.handled == {SweepPart.ANSWERS: 0}


async def test_the_sweep_looks_at_answers_of_turns_under_way_alone(
    stack: Stack, call: RunningCall, http: httpx.AsyncClient
) -> None:
    delivery = CallbackDelivery(stack.foundation.database)

    async def looks_at_it() -> bool:
        return call.execution.turn_id in {
            found.turn_id for found in await delivery.answered_calls()
        }

    unanswered = await looks_at_it()
    await answer(http, call, {"output": "Done."})
    answered = await looks_at_it()
    await call.change("turns", "status = 'completed'")

    assert (unanswered, answered, await looks_at_it()) == (False, True, False)


async def test_an_unavailable_temporal_is_not_an_error(call: RunningCall, stack: Stack) -> None:
    settings = stack.settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    nowhere = await connect_temporal(settings, lazy=True)
    answered = AnsweredCall(
        **{**call.input.turn.model_dump(exclude={"model"}), "step": 1},
        tool_call_id="c",
        status=ToolCallStatus.COMPLETED,
    )

    assert not await TemporalGateway(nowhere, eager=False).complete_callback(answered)
