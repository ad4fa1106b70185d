"""Today's workflows follow every recorded history, in the sandbox that production leaves off."""

import re
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from tests.replay.broken_workflows import (
    NeverFinishes,
    PreparesElsewhere,
    PreparesTwice,
    WaitsFirst,
)
from tests.replay.record import HISTORIES
from tests.replay.shapes import SHAPES
from workflows.chat_turn import ChatTurn
from workflows.sweep_turns import SweepTurns

FILES = sorted(HISTORIES.glob("*.json"))


def history(file: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(file.stem, file.read_text())


def test_every_shape_is_recorded() -> None:
    assert {file.stem for file in FILES} == SHAPES.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_recorded_history_is_followed(file: Path) -> None:
    replayer = Replayer(workflows=[ChatTurn, SweepTurns], data_converter=pydantic_data_converter)

    replayed = await replayer.replay_workflow(history(file))

    assert replayed.replay_failure is None


@pytest.mark.parametrize("broken", [PreparesTwice, WaitsFirst, NeverFinishes, PreparesElsewhere])
@pytest.mark.parametrize("shape", ["plain", "one_tool"])
async def test_a_deliberate_break_is_noticed(broken: type[ChatTurn], shape: str) -> None:
    replayer = Replayer(workflows=[broken], data_converter=pydantic_data_converter)

    with pytest.raises(NondeterminismError):
        await replayer.replay_workflow(history(HISTORIES / f"{shape}.json"))


def test_a_plain_turn_takes_at_most_13_events() -> None:
    assert len(history(HISTORIES / "plain.json").events) <= 13


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_history_names_no_machine(file: Path) -> None:
    text = file.read_text()

    processes = set(re.findall('"identity": "(.*)"', text))
    assert processes <= {"worker", "temporal-scheduler-default-everturn-sweep"}
    assert "stackTrace" not in text
    assert not re.search(r"\d@", text)
