"""Owns recording the histories: `python -m tests.replay.record` writes them all anew.

A change of a workflow that old runs can't follow is to be patched, not recorded over: record anew
when a shape is added, or when no run of the old code can be under way any more.
"""

import asyncio
import json
from pathlib import Path
from typing import Final

from temporalio.client import WorkflowExecutionStatus, WorkflowHistory

from tests.replay.sanitising import sanitised
from tests.replay.shapes import SETTINGS, SHAPES, Scene
from tests.running_everturn.client import Client
from tests.running_everturn.stack import scripted_model, scripted_stack
from tests.running_everturn.waiting import eventually

HISTORIES: Final = Path(__file__).parent / "histories"


async def record() -> None:
    """Produce each shape on a stack of its own making, and write its history."""
    async with (
        scripted_model() as (model, url),
        scripted_stack(model, url, settings=SETTINGS) as everturn,
        Client.signed_up(everturn.api) as client,
    ):
        for name, produce in SHAPES.items():
            scene = Scene(everturn, client, await everturn.temporal())
            history = await _history(scene, await produce(scene))
            model.clear_scripts()
            _file(name).write_text(json.dumps(sanitised(history), indent=1) + "\n")
            print(f"{name}: {len(history.events)} events")
    for stale in set(HISTORIES.glob("*.json")) - set(map(_file, SHAPES)):
        stale.unlink()


async def _history(scene: Scene, workflow_id: str) -> WorkflowHistory:
    """Return the history of a run that is over."""
    handle = scene.temporal.get_workflow_handle(workflow_id)

    async def status() -> WorkflowExecutionStatus | None:
        return (await handle.describe()).status

    await eventually(status, lambda found: found is not WorkflowExecutionStatus.RUNNING)
    return await handle.fetch_history()


def _file(name: str) -> Path:
    return HISTORIES / f"{name}.json"


if __name__ == "__main__":
    asyncio.run(record())
