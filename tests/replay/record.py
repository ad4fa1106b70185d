"""Records histories: `python -m tests.replay.record` writes those that are missing.

Patch a change of a workflow that old runs can't follow instead of recording over it: a recording
stays as it is. To record shapes again, name them, or delete their files. `--all` records everything
again; use it only where no run of the old code can still be open.

`--release 1.2.0` keeps what was recorded since the last release in a folder of that version, which
is never recorded over.
"""

import argparse
import asyncio
import json
import re
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
UNRELEASED: Final = HISTORIES / "unreleased"


def newest(shape: str) -> Path:
    """Return the newest recording of a shape: the unreleased one, or that of the last version."""
    return max(HISTORIES.rglob(f"{shape}.json"), key=_age)


def _age(file: Path) -> tuple[bool, tuple[int, ...]]:
    if file.parent == UNRELEASED:
        return True, ()
    return False, tuple(map(int, re.findall(r"\d+", file.parent.name)))


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
    parser.add_argument("--release", help="keep the unreleased ones as those of this version")
    parser.add_argument("shapes", nargs="*", help="record these again, beside what is missing")
    given = parser.parse_args()
    if given.release:
        keep(given.release)
        return
    recorded = {file.stem for file in HISTORIES.rglob("*.json")}
    wanted = {
        name: shape
        for name, shape in SHAPES.items()
        if given.all or name in given.shapes or name not in recorded
    }
    UNRELEASED.mkdir(exist_ok=True)
    if wanted:
        asyncio.run(record(wanted))
    for stale in set(UNRELEASED.glob("*.json")) - set(map(_file, {*SHAPES, *RETIRED})):
        stale.unlink()


def keep(version: str, histories: Path = HISTORIES) -> None:
    """Make the unreleased recordings those of a version. Errors: SystemExit with the reason."""
    unreleased, kept = histories / UNRELEASED.name, histories / version
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise SystemExit(f"{version} is not a version, e.g. 1.4.0.")
    if kept.exists():
        raise SystemExit(f"Version {version} has its recordings already, which stay as they are.")
    if not any(unreleased.glob("*.json")):
        raise SystemExit("Nothing was recorded since the last release: there is nothing to keep.")
    unreleased.rename(kept)


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
    return UNRELEASED / f"{name}.json"


if __name__ == "__main__":
    main()
