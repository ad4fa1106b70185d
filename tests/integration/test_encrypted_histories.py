"""Histories of turns whose payloads are encrypted."""

import base64
import json
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from pydantic import SecretStr
from temporalio.client import WorkflowFailureError, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import turn_id_of
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, open_stack
from tests.running_everturn.process import run
from workers.codec_server import NothingToDecodeError, make_codec_app, serve_codec
from workflows.chat_turn import ChatTurn

KEYS: Final = f"{secrets.token_urlsafe(48)},{secrets.token_urlsafe(48)}"
UI: Final = "https://temporal.example.com"
TEMPORAL: Final = str(Path(sys.executable).with_name("temporal"))
ENCRYPTED: Final = base64.b64encode(b"binary/encrypted").decode()
RECORDED: Final = next(
    (Path(__file__).parents[1] / "replay" / "histories").rglob("approved_tool.json")
)


@pytest.fixture(scope="module")
async def sealed(stack_name: str) -> AsyncIterator[Stack]:
    """A stack whose payloads are encrypted with the first of two keys."""
    async with open_stack(
        f"{stack_name}-sealed", {"temporal_encryption_keys": SecretStr(KEYS)}
    ) as opened:
        yield opened


async def history_of(stack: Stack, turn_id: str) -> WorkflowHistory:
    handle = stack.temporal.get_workflow_handle(f"turn-{turn_id}")
    with suppress(WorkflowFailureError):
        await handle.result()
    return await handle.fetch_history()


def payloads_in(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 -- JSON
    """Yield the payloads of a history.

    Search attributes are never encrypted, nor is the SDK's own part of the marker of a local
    activity: its number, type and times.
    """
    match value:
        case {"metadata": {"encoding": _}}:
            yield value
        case dict():
            for name, item in value.items():
                if name not in {"searchAttributes", "data"}:
                    yield from payloads_in(item)
        case list():
            for item in value:
                yield from payloads_in(item)


async def check_replay(stack: Stack, history: WorkflowHistory) -> None:
    replayer = Replayer(
        workflows=[ChatTurn],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=stack.temporal.data_converter,
    )
    await replayer.replay_workflow(history)


@pytest.fixture
async def sealed_user(sealed: Stack) -> ApiUser:
    return await sealed.sign_up()


async def test_payloads_of_a_turn_are_encrypted_and_replayed(
    sealed: Stack, sealed_user: ApiUser
) -> None:
    question = unique()
    sum_of = ToolCall(name="calculator", input={"expression": "6 * 7"})
    sealed.model.add(Script(match=question, tool_calls=(sum_of,)))
    sealed.model.add(Script(match=question, text="It is 42."))
    events = await sealed_user.events_of(await sealed_user.create_chat(), question)

    history = await history_of(sealed, turn_id_of(events))

    assert events[-1].data["status"] == "completed"
    payloads = list(payloads_in(json.loads(history.to_json())))
    assert payloads
    assert {payload["metadata"]["encoding"] for payload in payloads} == {ENCRYPTED}
    await check_replay(sealed, history)


async def test_messages_of_failures_are_encrypted_and_replayed(
    sealed: Stack, sealed_user: ApiUser
) -> None:
    question = unique()
    sealed.model.add(Script(match=question, status=400, message="no"))
    events = await sealed_user.events_of(await sealed_user.create_chat(), question)

    history = await history_of(sealed, turn_id_of(events))

    assert events[-1].data["status"] == "failed"
    failures = [
        event.activity_task_failed_event_attributes.failure
        for event in history.events
        if event.HasField("activity_task_failed_event_attributes")
    ]
    assert {failure.message for failure in failures} == {"Encoded failure"}
    assert {failure.stack_trace for failure in failures} == {""}
    await check_replay(sealed, history)


async def test_operators_read_payloads_by_a_codec_server(
    sealed: Stack, sealed_user: ApiUser, tmp_path: Path
) -> None:
    question = unique()
    sealed.model.add(Script(match=question, text="Hello."))
    events = await sealed_user.events_of(await sealed_user.create_chat(), question)
    workflow_id = f"turn-{turn_id_of(events)}"
    show = ("workflow", "show", "--workflow-id", workflow_id, "--output", "json")
    temporal = ("--address", sealed.addresses.temporal, "--namespace", sealed.temporal.namespace)

    async with serving(make_codec_app(KEYS, ui_origin=UI)) as codec:
        sealed_history = await run(TEMPORAL, *show, *temporal, folder=tmp_path)
        opened = await run(TEMPORAL, *show, *temporal, "--codec-endpoint", codec, folder=tmp_path)

    assert ENCRYPTED in sealed_history.output, sealed_history.errors
    assert ENCRYPTED not in opened.output
    started = json.loads(opened.output)["events"][0]["workflowExecutionStartedEventAttributes"]
    view = base64.b64decode(started["memo"]["fields"]["adminView"]["data"]).decode()
    assert json.loads(view) == f"/api/v1/admin/turns/{turn_id_of(events)}"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Origin": UI}, {"payloads": []}, 200),
        ({}, {"payloads": []}, 200),
        ({"Origin": "https://elsewhere.example.com"}, {"payloads": []}, 403),
        ({}, {"payload": []}, 400),
        ({}, {"payloads": [{"metadata": {"encoding": ENCRYPTED}, "data": "eA=="}]}, 400),
    ],
)
async def test_a_codec_server_answers_the_ui_and_programs_only(
    headers: dict[str, str], body: dict[str, Any], status: int
) -> None:
    preflight = {"Origin": UI, "Access-Control-Request-Method": "POST"}
    preflight["Access-Control-Request-Headers"] = "content-type,x-namespace"
    async with (
        serving(make_codec_app(KEYS, ui_origin=UI)) as codec,
        httpx.AsyncClient(base_url=codec, trust_env=False) as http,
    ):
        asked = await http.post("/decode", json=body, headers=headers)
        allowed = await http.options("/decode", headers=preflight)
        large = await http.post("/decode", content=b"x" * (8 * 1024 * 1024 + 1))

    assert asked.status_code == status, asked.text
    assert allowed.headers["access-control-allow-origin"] == UI
    assert large.status_code == 413


async def test_a_codec_server_without_keys_names_the_setting(sealed: Stack) -> None:
    settings = sealed.settings.model_copy(update={"temporal_encryption_keys": None})

    with pytest.raises(NothingToDecodeError, match="Set EVERTURN_TEMPORAL_ENCRYPTION_KEYS"):
        await serve_codec(settings, port=0, ui_url=UI)


async def test_a_history_from_before_the_encryption_is_replayed(sealed: Stack) -> None:
    await check_replay(sealed, WorkflowHistory.from_json("recorded", RECORDED.read_text()))
