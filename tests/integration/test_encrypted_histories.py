"""Histories of turns whose payloads are encrypted."""

import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr
from temporalio.client import WorkflowFailureError, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import turn_id_of
from tests.fixtures.stack import Stack, open_stack
from workflows.chat_turn import ChatTurn

ENCRYPTED: Final = base64.b64encode(b"binary/encrypted").decode()
RECORDED: Final = next(
    (Path(__file__).parents[1] / "replay" / "histories").rglob("approved_tool.json")
)


@pytest.fixture(scope="module")
async def sealed(stack_name: str) -> AsyncIterator[Stack]:
    """A stack whose payloads are encrypted with the first of two keys."""
    keys = f"{secrets.token_urlsafe(48)},{secrets.token_urlsafe(48)}"
    async with open_stack(
        f"{stack_name}-sealed", {"temporal_encryption_keys": SecretStr(keys)}
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


async def test_a_history_from_before_the_encryption_is_replayed(sealed: Stack) -> None:
    await check_replay(sealed, WorkflowHistory.from_json("recorded", RECORDED.read_text()))
