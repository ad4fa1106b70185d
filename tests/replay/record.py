"""Records histories: `python -m tests.replay.record` writes those that are missing.

Patch a change of a workflow that old runs can't follow instead of recording over it: a recording
stays as it is. To record one shape again, delete its file. `--all` records everything again; use
it only where no run of the old code can still be open.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from temporalio.client import WorkflowExecutionStatus, WorkflowHistory

from tests.fakes.embedding_api import EmbeddingApi, serving
from tests.fakes.webhook_engine import webhook_engine
from tests.replay.sanitising import sanitised
from tests.replay.scene import ADMIN, Person, Scene, settings_with
from tests.replay.shapes import RETIRED, SHAPES, Shape
from tests.running_everturn.stack import scripted_model, scripted_stack
from tests.running_everturn.waiting import eventually

HISTORIES: Final = Path(__file__).parent / "histories"


async def record(shapes: Mapping[str, Shape]) -> None:
    """Produce these shapes on a stack of its own, and write their histories."""
    async with _scene() as scene:
        for name, produce in shapes.items():
            history = await _history(scene, await produce(scene))
            scene.everturn.model.clear_scripts()
            _file(name).write_text(json.dumps(sanitised(history), indent=1) + "\n")
            print(f"{name}: {len(history.events)} events")


def main() -> None:
    """Record the missing histories, or all, and remove those of shapes that are gone."""
    parser = argparse.ArgumentParser(description="Record the histories that are missing.")
    parser.add_argument("--all", action="store_true", help="record those that are there, too")
    is_all = parser.parse_args().all
    wanted = {name: shape for name, shape in SHAPES.items() if is_all or not _file(name).exists()}
    if wanted:
        asyncio.run(record(wanted))
    for stale in set(HISTORIES.glob("*.json")) - set(map(_file, {*SHAPES, *RETIRED})):
        stale.unlink()


@asynccontextmanager
async def _scene() -> AsyncIterator[Scene]:
    embeddings = EmbeddingApi()
    async with (
        scripted_model() as (model, model_url),
        serving(embeddings) as embeddings_url,
        webhook_engine() as receiver,
        scripted_stack(
            model, model_url, settings=settings_with(embeddings_url, receiver)
        ) as everturn,
        Person.signed_up(everturn.api) as client,
        Person.signed_in(everturn.api, ADMIN) as admin,
    ):
        yield Scene(everturn, client, admin, await everturn.temporal(), embeddings, receiver)


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
    main()
