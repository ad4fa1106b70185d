"""What an operator and a script find of a running `everturn dev`."""

import stat
from collections.abc import Mapping, Sequence

import httpx
import psutil
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.running_everturn.client import Client
from tests.running_everturn.process import EverturnDev


async def test_addresses_json_holds_the_documented_keys_and_is_readable_only_by_its_owner(
    everturn: EverturnDev,
) -> None:
    file = everturn.data / "addresses.json"

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    documented = {"api", "docs", "temporal", "temporalUi", "database", "redis"}
    assert documented | {"model", "metrics"} == everturn.addresses.keys()
    assert everturn.addresses["database"].startswith("postgresql://everturn:")
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(everturn.addresses["docs"])).status_code == httpx.codes.OK
        metrics: Mapping[str, str] = everturn.addresses["metrics"]
        assert metrics.keys() == {"api", "worker-turns", "worker-tools"}
        for url in metrics.values():
            assert (await http.get(url)).status_code == httpx.codes.OK


async def test_processes_json_names_the_running_processes(everturn: EverturnDev) -> None:
    pids = everturn.pids()

    servers = {"postgres", "valkey", "temporal"}
    assert servers | {"api", "worker-turns", "worker-tools"} == pids.keys()
    assert all(psutil.pid_exists(pid) for pid in pids.values())


async def test_the_temporal_ui_shows_the_run_of_a_turn(
    client: Client, everturn: EverturnDev
) -> None:
    async with client.ask("Say something for the UI.") as stream:
        await stream.to_end()

    ui = everturn.addresses["temporalUi"]
    async with httpx.AsyncClient(base_url=ui, trust_env=False) as http:
        page = await http.get("/namespaces/default/workflows")
        run = await http.get(f"/api/v1/namespaces/default/workflows/turn-{stream.turn_id}")

    assert page.headers["content-type"].startswith("text/html")
    assert "<!doctype html>" in page.text
    shown = run.json()["workflowExecutionInfo"]
    assert shown["type"] == {"name": "ChatTurn"}
    assert shown["status"] == "WORKFLOW_EXECUTION_STATUS_COMPLETED"


async def test_an_operator_reads_a_run_without_reading_the_chat(
    client: Client, everturn: EverturnDev
) -> None:
    async with client.ask("What is 20101 * 3?") as stream:
        await stream.to_end()
    temporal = await TemporalClient.connect(
        everturn.addresses["temporal"], data_converter=pydantic_data_converter
    )
    handle = temporal.get_workflow_handle(f"turn-{stream.turn_id}")

    # Clients see the end just before the workflow completes.
    await handle.result()
    run = await handle.describe()
    history = await handle.fetch_history()

    assert run.status is WorkflowExecutionStatus.COMPLETED
    assert [_summary(event) for event in _scheduled_activities(history.events)] == [
        "model call 1 · claude-haiku-5-5",
        "model call 2 · claude-haiku-5-5",
    ]
    attributes = {pair.key.name: pair.value for pair in run.typed_search_attributes}
    turn = await client.turn(stream.turn_id)
    assert attributes["EverturnChatId"] == turn["chatId"]
    assert attributes["EverturnModel"] == "claude-haiku-5-5"
    assert not any(b"20101" in event.SerializeToString() for event in history.events)


def _scheduled_activities(events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    scheduled = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    return [event for event in events if event.event_type == scheduled]


def _summary(event: HistoryEvent) -> object:
    (summary,) = pydantic_data_converter.payload_converter.from_payloads(
        [event.user_metadata.summary]
    )
    return summary
