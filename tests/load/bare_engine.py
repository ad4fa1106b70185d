"""The cost of the engine itself: a workflow of a local activity, an activity, a local one.

It has the shape of a plain turn and does nothing. Run as a program it is the worker.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.load.samples import Sample

_QUEUE = "bare-engine"
_PATIENCE = timedelta(seconds=30)


@activity.defn
async def moment() -> float:
    """Return the present moment of the clock that processes share."""
    return time.perf_counter()


@workflow.defn
class BareTurn:
    """As many steps as a plain turn has."""

    @workflow.run
    async def run(self) -> float:
        """Return the moment of the first step."""
        first = await workflow.execute_local_activity(moment, start_to_close_timeout=_PATIENCE)
        await workflow.execute_activity(moment, start_to_close_timeout=_PATIENCE)
        await workflow.execute_local_activity(moment, start_to_close_timeout=_PATIENCE)
        return first


class BareEngine:
    """Runs bare workflows from this process on a worker of their own."""

    def __init__(self, client: Client, worker_pid: int) -> None:
        self._client = client
        self.worker_pid = worker_pid

    async def run(self, count: int, *, concurrency: int) -> list[Sample]:
        """Run workflows, this number at a time."""
        left = iter(range(count))
        samples: list[Sample] = []

        async def work() -> None:
            samples.extend([await self._run_one() for _ in left])

        await asyncio.gather(*(work() for _ in range(concurrency)))
        return samples

    async def _run_one(self) -> Sample:
        began = time.perf_counter()
        first = await self._client.execute_workflow(
            BareTurn.run, id=f"bare-{uuid4()}", task_queue=_QUEUE, task_timeout=_PATIENCE
        )
        return Sample(200, began, first, time.perf_counter(), "", completed=True)


@asynccontextmanager
async def bare_engine(address: str) -> AsyncIterator[BareEngine]:
    """Run the worker's process for the length of the block."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.load.bare_engine",
        address,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    if worker.stdin is None or worker.stdout is None:
        raise RuntimeError("the worker has no pipes")
    try:
        await worker.stdout.readline()
        yield BareEngine(await Client.connect(address), worker.pid)
    finally:
        worker.stdin.close()
        await worker.wait()


async def _serve(arguments: Sequence[str]) -> None:
    client = await Client.connect(arguments[0])
    worker = Worker(
        client,
        task_queue=_QUEUE,
        workflows=[BareTurn],
        activities=[moment],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
