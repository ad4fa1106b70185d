"""Today's workflows follow every history that any version has recorded, in the sandbox.

Production leaves the sandbox off.
"""

import base64
import json
import re
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

from tests.replay.broken_workflows import (
    CallsLocally,
    EmbedsAtOnce,
    NeverFinishes,
    PreparesApart,
    WaitsFirst,
)
from tests.replay.record import HISTORIES, newest
from tests.replay.scene import SECRET
from tests.replay.shapes import RETIRED, SHAPES
from workers.replay import HistoryReplays
from workers.sweeper import RETIRED_SCHEDULES
from workers.workflow_types import ALL_WORKFLOWS

FILES = sorted(HISTORIES.rglob("*.json"))


def name_of(file: Path) -> str:
    """Return the version and the shape of a recording."""
    return f"{file.parent.name}/{file.stem}"


def history(file: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(file.stem, file.read_text())


def words_of(file: Path) -> str:
    """Return all that a history says, that in its payloads, too."""
    text = file.read_text()
    payloads = re.findall(r'"data": "([^"]*)"', text)
    return "\n".join([text, *(base64.b64decode(payload).decode() for payload in payloads)])


def workflow_in(file: Path) -> str:
    started = json.loads(file.read_text())["events"][0]
    name: str = started["workflowExecutionStartedEventAttributes"]["workflowType"]["name"]
    return name


def test_every_shape_is_recorded() -> None:
    assert {file.stem for file in FILES} == SHAPES.keys() | RETIRED


def test_every_workflow_has_a_shape() -> None:
    assert {workflow_in(file) for file in FILES} == {
        workflow.__name__ for workflow in ALL_WORKFLOWS
    }


@pytest.mark.parametrize("file", FILES, ids=name_of)
async def test_a_recorded_history_is_followed(file: Path) -> None:
    assert (await HistoryReplays().replay(history(file))).problem is None


@pytest.mark.parametrize(
    ("broken", "shape"),
    [
        *(
            (broken, shape)
            for broken in (PreparesApart, WaitsFirst, CallsLocally)
            for shape in ("plain", "one_tool")
        ),
        # The last answer of other turns ends them.
        *((NeverFinishes, shape) for shape in ("failed_for_good", "max_steps")),
        (EmbedsAtOnce, "ingestion_in_one_batch"),
        (EmbedsAtOnce, "ingestion_of_what_is_no_pdf"),
    ],
)
async def test_a_deliberate_break_is_noticed(broken: type, shape: str) -> None:
    replayed = await HistoryReplays(workflows=[broken]).replay(history(newest(shape)))

    assert replayed.problem is not None
    assert "ondeterminism" in replayed.problem
    assert len(str(replayed).splitlines()) == 1


def test_a_plain_turn_takes_at_most_12_events() -> None:
    assert len(history(newest("plain")).events) <= 12


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_recorded_history_names_no_machine(file: Path) -> None:
    text = file.read_text()

    processes = set(re.findall('"identity": "(.*)"', text))
    schedulers = {f"temporal-scheduler-default-{schedule}" for schedule in RETIRED_SCHEDULES}
    assert processes <= {"worker", *schedulers}
    assert "stackTrace" not in text
    assert not re.search(r"\d@", text)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_recorded_history_holds_no_text_of_documents_or_memories(file: Path) -> None:
    assert SECRET not in words_of(file)


def test_payload_contents_would_be_detected() -> None:
    refused = newest("ingestion_refused_by_the_embedder")
    assert '"problem":"embedding_refused"' in words_of(refused)
