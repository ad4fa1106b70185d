"""A deploy stops workers and APIs in mid-turn: the model is asked once, and streams go on."""

import asyncio
import signal
from contextlib import AsyncExitStack

import httpx2

from everturn_client import AsyncEverturn
from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.beside import Beside, beside, run_command, worker_beside
from tests.running_everturn.checks import assert_paid_for, assert_stream_is_whole
from tests.running_everturn.client import Client, EventStream
from tests.running_everturn.process import EVERTURN, free_port
from tests.running_everturn.stack import ScriptedStack

WORKER = "worker-turns"
GRACE = {"EVERTURN_SHUTDOWN_GRACE_S": "30"}


async def stop_in_mid_call(everturn: ScriptedStack, worker: Beside, match: str) -> None:
    """Stop a worker whose model call is held, and let the call go on then."""
    worker.send()
    await worker.stopping()
    assert await worker.probe("/live") == 200
    everturn.model.release(match)


def hold_an_answer(everturn: ScriptedStack, match: str) -> None:
    """Let the model wait in mid-answer until `match` is released."""
    everturn.model.add(Script(match=match, pieces=("Half ", "and half."), hold=match, hold_after=1))


async def assert_asked_once(
    everturn: ScriptedStack, client: Client, stream: EventStream, match: str
) -> None:
    answer = await assert_stream_is_whole(client, stream.turn_id, stream.events)
    assert answer == "Half and half."
    charges = await assert_paid_for(everturn, stream.turn_id, match)
    assert [charge["status"] for charge in charges] == ["settled"]


async def test_a_stopping_worker_ends_its_call_while_another_goes_on_with_the_turn(
    everturn: ScriptedStack, client: Client
) -> None:
    hold_an_answer(everturn, "two workers")
    await everturn.stack.stop(WORKER)

    async with (
        worker_beside(everturn, **GRACE) as old,
        client.ask("asked of two workers") as stream,
    ):
        await stream.until_text("Half ")
        async with worker_beside(everturn, **GRACE):
            await stop_in_mid_call(everturn, old, "two workers")
            await stream.to_end()
            assert await old.ended() == 0

    await assert_asked_once(everturn, client, stream, "two workers")


async def test_a_stopping_worker_ends_its_call_where_no_other_is_ready(
    everturn: ScriptedStack, client: Client
) -> None:
    hold_an_answer(everturn, "one worker")
    await everturn.stack.stop(WORKER)

    async with client.ask("asked of one worker") as stream:
        async with worker_beside(everturn, **GRACE) as only:
            await stream.until_text("Half ")
            await stop_in_mid_call(everturn, only, "one worker")
            assert await only.ended() == 0
        await everturn.stack.start(WORKER)
        await stream.to_end()

    await assert_asked_once(everturn, client, stream, "one worker")


async def test_a_worker_without_its_metrics_port_takes_no_work(everturn: ScriptedStack) -> None:
    async with worker_beside(everturn) as first:
        taken = str(first.port)
        command = ("worker", "--queue=turns")
        code, output = await run_command(everturn, *command, EVERTURN_METRICS_PORT=taken)

    assert code == 1
    assert "worker_ready" not in output
    assert output.strip() == (
        f"Port {taken} is in use. Stop the process that uses it, or set EVERTURN_METRICS_PORT."
    )


async def test_a_second_signal_ends_a_worker_in_mid_call(
    everturn: ScriptedStack, client: Client
) -> None:
    hold_an_answer(everturn, "an impatient worker")
    await everturn.stack.stop(WORKER)

    async with client.ask("asked of an impatient worker") as stream:
        async with worker_beside(everturn, EVERTURN_SHUTDOWN_GRACE_S="300") as only:
            await stream.until_text("Half ")
            only.send()
            await only.stopping()
            only.send()
            assert await only.ended() == -signal.SIGTERM
        everturn.model.add(Script(match="an impatient worker", text="Half and half."))
        await everturn.stack.start(WORKER)
        await stream.to_end()

    assert stream.events[-1].data["status"] == "completed"


async def test_a_second_signal_ends_an_api_that_still_serves(everturn: ScriptedStack) -> None:
    port = str(free_port())
    async with beside(
        everturn, EVERTURN, "api", EVERTURN_API_PORT=port, EVERTURN_DRAIN_S="300"
    ) as api:
        await api.become_ready()
        api.send()
        await api.stopping()
        api.send()

        assert await api.ended() == 0


async def test_a_request_that_waits_for_its_answer_gets_202_from_a_stopping_api(
    everturn: ScriptedStack, client: Client
) -> None:
    hold_an_answer(everturn, "asked in one piece")
    port = str(free_port())
    chat = (await client.api.chats.create(title="A chat")).id
    async with (
        beside(everturn, EVERTURN, "api", EVERTURN_API_PORT=port) as api,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as http,
    ):
        await api.become_ready()
        waiting = asyncio.create_task(
            http.post(
                f"/chats/{chat}/messages",
                headers={"Authorization": f"Bearer {client.token}"},
                json={"content": "asked in one piece", "stream": False},
                timeout=30,
            )
        )
        await everturn.model.wait_for_request(match="asked in one piece")
        api.send()
        accepted = await waiting
        assert await api.ended() == 0

    turn = accepted.json()["data"]["turn"]
    assert (accepted.status_code, turn["status"]) == (202, "running")
    everturn.model.release("asked in one piece")
    assert (await client.events(turn["id"]))[-1].data["status"] == "completed"


async def test_streams_of_a_stopping_api_end_without_an_error_and_resume_elsewhere(
    everturn: ScriptedStack, client: Client
) -> None:
    hold_an_answer(everturn, "two APIs")
    async with AsyncExitStack() as stack:
        port = free_port()
        old = await stack.enter_async_context(
            beside(everturn, EVERTURN, "api", EVERTURN_API_PORT=str(port), EVERTURN_DRAIN_S="0.5")
        )
        await old.become_ready()
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False)
        )
        sent = await stack.enter_async_context(client.ask("asked of two APIs"))
        await sent.until_text("Half ")
        headers = {"Authorization": f"Bearer {client.token}"}

        async with http.stream("GET", f"/turns/{sent.turn_id}/events", headers=headers) as response:
            pieces = response.aiter_text()
            seen = await anext(pieces)
            old.send()
            # Not ready any more, but new requests are still served.
            ready = await http.get("/health/ready")
            served = await http.get(f"/turns/{sent.turn_id}", headers=headers)
            # A chunked body that is cut off would raise here.
            seen += "".join([piece async for piece in pieces])
        assert await old.ended() == 0

        assert ready.status_code == 503
        assert served.status_code == 200
        assert seen.endswith(": this server is stopping, reconnect\n\n")
        last = seen.rpartition("id: ")[2].partition("\n")[0]
        everturn.model.release("two APIs")
        rest = await client.events(sent.turn_id, after=last)
        await sent.to_end()

    assert rest == sent.events[-len(rest) :]
    await assert_asked_once(everturn, client, sent, "two APIs")


async def test_the_client_library_follows_a_turn_over_the_restart_of_its_api(
    everturn: ScriptedStack, client: Client
) -> None:
    hold_an_answer(everturn, "a restart")
    chat_id = await client.new_chat()

    async def restart() -> None:
        await everturn.stack.stop("api")
        await everturn.stack.start("api")
        everturn.model.release("a restart")

    async with (
        AsyncEverturn(everturn.api, token=client.token) as asking,
        asking.messages.stream(chat_id, content="asked over a restart") as stream,
    ):
        coming = aiter(stream)
        while stream.state.text != "Half ":
            await anext(coming)
        restarting = asyncio.create_task(restart())
        result = await stream.final()
        await restarting

    assert result.text == "Half and half."
    charges = await assert_paid_for(everturn, result.turn_id, "a restart")
    assert [charge["status"] for charge in charges] == ["settled"]
