"""Which worker of a test run gets which tests, and which workers end early."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from tests.fixtures.scheduling import COMPUTING, GroupScheduling

CHAOS = [f"tests/chaos/test_workers_die.py::test_{number}" for number in range(4)]
TOOLS = [f"tests/chaos/test_tools_die.py::test_{number}" for number in range(4)]
E2E = [f"tests/e2e/test_chatting.py::test_{number}" for number in range(4)]
SERVICES = [f"tests/integration/test_chats.py::test_{number}" for number in range(40)]
UNIT = [
    f"tests/unit/test_{module}.py::test_{number}" for module in ("a", "b") for number in range(5)
]


@dataclass(eq=False)
class Worker:
    """What a scheduler sees of a worker, and what it was given."""

    gateway: SimpleNamespace
    given: list[list[int]] = field(default_factory=list)
    shutting_down: bool = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given.append(indices)

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduled(tests: list[str], *, workers: int) -> tuple[GroupScheduling, list[Worker]]:
    config = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=False), getvalue=lambda _: ["popen"] * workers
    )
    log = SimpleNamespace(loadscopesched=lambda *_: None)
    scheduling = GroupScheduling(config, log)
    found = [Worker(SimpleNamespace(id=f"gw{number}")) for number in range(workers)]
    for worker in found:
        scheduling.add_node(worker)
        scheduling.add_node_collection(worker, tests)
    scheduling.schedule()
    return scheduling, found


def run_next(scheduling: GroupScheduling, worker: Worker) -> str:
    """Complete the oldest test of a worker, and return it."""
    index = next(index for unit in worker.given for index in unit)
    for unit in worker.given:
        if index in unit:
            unit.remove(index)
    scheduling.mark_test_complete(worker, index)
    name: str = scheduling.collection[index]
    return name


def pending(scheduling: GroupScheduling, worker: Worker) -> list[str]:
    return [scheduling.collection[index] for unit in worker.given for index in unit]


def test_tests_of_one_running_everturn_go_to_one_worker() -> None:
    scheduling, workers = scheduled([*CHAOS, *TOOLS, *E2E, *SERVICES], workers=4)

    assert [pending(scheduling, worker) for worker in workers[:3]] == [CHAOS, TOOLS, E2E]
    assert pending(scheduling, workers[3]) == SERVICES[:2]


def test_unit_tests_are_given_by_module() -> None:
    scheduling, workers = scheduled(UNIT, workers=2)

    assert [pending(scheduling, worker) for worker in workers] == [UNIT[:5], UNIT[5:]]


@pytest.mark.parametrize(("workers", "goes_on"), [(COMPUTING, True), (COMPUTING + 1, False)])
def test_a_worker_ends_with_its_running_everturn_where_enough_others_go_on(
    workers: int, *, goes_on: bool
) -> None:
    scheduling, found = scheduled([*CHAOS, *SERVICES], workers=workers)

    done = [run_next(scheduling, found[0]) for _ in CHAOS]

    assert done == CHAOS
    assert found[0].shutting_down is not goes_on
    assert bool(pending(scheduling, found[0])) is goes_on


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_test_runs_once(workers: int) -> None:
    tests = [*CHAOS, *TOOLS, *E2E, *SERVICES, *UNIT]
    scheduling, found = scheduled(tests, workers=workers)

    done = []
    while any(pending(scheduling, worker) for worker in found):
        done += [run_next(scheduling, worker) for worker in found if pending(scheduling, worker)]

    assert sorted(done) == sorted(tests)
    assert scheduling.tests_finished
    assert all(worker.shutting_down for worker in found)
