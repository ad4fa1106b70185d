"""The supervisor, with shells as the processes that it keeps."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from workers.embedded.child import ProcessRegister
from workers.embedded.errors import ProcessDiedError, ProcessNotReadyError
from workers.embedded.logs import Terminal
from workers.embedded.supervisor import Probe, ProcessSpec, RestartPolicy, Supervisor

AT_ONCE = RestartPolicy(
    first_delay=timedelta(0),
    longest_delay=timedelta(0),
    probe_interval=timedelta(milliseconds=5),
)
Build = Callable[..., Supervisor]


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
async def build(tmp_path: Path, output: io.StringIO) -> AsyncIterator[Build]:
    built: list[Supervisor] = []

    def build_supervisor(*specs: ProcessSpec) -> Supervisor:
        supervisor = Supervisor(
            specs,
            logs=tmp_path,
            register=ProcessRegister(tmp_path),
            terminal=Terminal(Console(file=output)),
            restart=AT_ONCE,
        )
        built.append(supervisor)
        return supervisor

    yield build_supervisor
    for supervisor in built:
        supervisor.kill_all()
        await supervisor.stop()


def shell(name: str, script: str, **options: object) -> ProcessSpec:
    return ProcessSpec(name=name, command=("sh", "-c", script), **options)  # type: ignore[arg-type]


def sleeper(name: str, *after: str) -> ProcessSpec:
    return ProcessSpec(name=name, command=("sleep", "1000"), after=after)


def ready_when_exists(path: Path) -> Probe:
    async def exists() -> bool:
        return path.exists()  # noqa: ASYNC240

    return exists


def pid_of(supervisor: Supervisor, name: str) -> int:
    pid = supervisor[name].pid
    assert pid is not None
    return pid


def wait_gone(pid: int) -> None:
    """Wait until the process is gone, or a zombie that has not been reaped."""
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return


async def test_a_killed_process_is_started_again(build: Build) -> None:
    supervisor = build(sleeper("api"))
    await supervisor.start()
    first = pid_of(supervisor, "api")

    supervisor["api"].kill()
    await supervisor["api"].wait_ready()

    wait_gone(first)
    assert first != pid_of(supervisor, "api")


async def test_processes_json_holds_the_ids_of_running_processes(
    build: Build, tmp_path: Path
) -> None:
    supervisor = build(sleeper("api"), sleeper("worker"))
    await supervisor.start()
    supervisor["api"].kill()
    await supervisor["api"].wait_ready()

    written = json.loads((tmp_path / "processes.json").read_text())

    expected = {name: pid_of(supervisor, name) for name in ("api", "worker")}
    assert expected == written


async def test_an_early_process_runs_before_its_dependencies_and_continues_after_them(
    build: Build, tmp_path: Path
) -> None:
    launched, migrated = tmp_path / "launched", tmp_path / "migrated"
    # The dependency ends only once the early process is there.
    wait_for = "while [ ! -e launched ]; do sleep 0.01; done; touch migrated"
    script = "touch launched; read signal; [ -e migrated ] && touch ready; exec sleep 1000"
    supervisor = build(
        shell("migrate", wait_for, one_shot=True, cwd=tmp_path),
        shell(
            "api",
            script,
            after=("migrate",),
            early=True,
            ready=ready_when_exists(tmp_path / "ready"),
            cwd=tmp_path,
        ),
    )

    await supervisor.start()

    assert launched.exists()
    assert migrated.exists()


async def test_a_killed_early_process_restarts_at_once(build: Build, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"read signal && touch {ready}; exec sleep 1000"
    spec = shell("api", script, early=True, ready=ready_when_exists(ready))
    supervisor = build(spec)
    await supervisor.start()
    ready.unlink()

    supervisor["api"].kill()
    await supervisor["api"].wait_ready()

    assert ready.exists()


async def test_the_start_signal_follows_what_it_announces(build: Build, tmp_path: Path) -> None:
    written = tmp_path / "addresses"
    script = f"read signal; [ -e {written} ] && exec sleep 1000"
    ready = ready_when_exists(written)
    supervisor = build(shell("api", script, early=True, on_start_signal=written.touch, ready=ready))

    await supervisor.start()

    assert supervisor["api"].pid is not None


async def test_a_stopped_process_stays_down_until_it_is_started(build: Build) -> None:
    supervisor = build(sleeper("valkey"))
    await supervisor.start()

    await supervisor["valkey"].stop()
    assert supervisor["valkey"].pid is None

    await supervisor["valkey"].start()
    assert supervisor["valkey"].pid is not None


async def test_processes_stop_before_what_they_depend_on(build: Build, tmp_path: Path) -> None:
    order = tmp_path / "order"

    def recorder(name: str, *after: str) -> ProcessSpec:
        trapped = tmp_path / f"{name}.trapped"
        script = (
            f"trap 'echo {name} >> {order}; exit 0' TERM; touch {trapped}; "
            "while :; do sleep 1000 & wait $!; done"
        )
        return shell(name, script, after=after, ready=ready_when_exists(trapped))

    supervisor = build(recorder("worker", "postgres"), recorder("postgres"))
    await supervisor.start()
    await supervisor.stop()

    assert order.read_text().split() == ["worker", "postgres"]


async def test_a_process_starts_after_what_it_depends_on(build: Build, tmp_path: Path) -> None:
    migrated = tmp_path / "migrated"
    supervisor = build(
        shell("api", f"test -e {migrated} && exec sleep 1000", after=("migrate",)),
        shell("migrate", f"touch {migrated}", one_shot=True),
    )

    await supervisor.start()

    assert supervisor["api"].pid is not None
    assert supervisor["migrate"].pid is None


async def test_a_process_that_keeps_dying_fails_the_start_with_its_last_words(
    build: Build, tmp_path: Path
) -> None:
    attempts = tmp_path / "attempts"
    supervisor = build(
        sleeper("postgres"),
        shell(
            "api",
            f"echo again >> {attempts}; echo no such table; exit 3",
            ready=ready_when_exists(tmp_path / "never"),
        ),
    )

    with pytest.raises(ProcessDiedError) as caught:
        await supervisor.start()

    words = "\n".join(["no such table"] * 5)
    assert f"api could not be started: exit code 3.\n{words}" == str(caught.value)
    assert len(attempts.read_text().split()) == 5
    assert supervisor["postgres"].pid is None


async def test_a_failing_migration_is_not_tried_again(build: Build) -> None:
    supervisor = build(shell("migrate", "echo broken; exit 1", one_shot=True))

    with pytest.raises(ProcessDiedError) as caught:
        await supervisor.start()

    assert str(caught.value) == "migrate could not be started: exit code 1.\nbroken"


async def test_a_missing_program_is_named(build: Build) -> None:
    supervisor = build(ProcessSpec(name="valkey", command=("/no/such/program",), one_shot=True))

    with pytest.raises(ProcessDiedError) as caught:
        await supervisor.start()

    expected = "valkey could not be started: /no/such/program: No such file or directory."
    assert expected == str(caught.value)


async def test_a_process_that_does_not_get_ready_fails_the_start(
    build: Build, tmp_path: Path
) -> None:
    supervisor = build(
        shell(
            "api",
            "exec sleep 1000",
            ready=ready_when_exists(tmp_path / "never"),
            ready_timeout=timedelta(milliseconds=20),
        )
    )

    with pytest.raises(ProcessNotReadyError) as caught:
        await supervisor.start()

    assert str(caught.value) == "api was not ready after 0.02 s."
    assert supervisor["api"].pid is None


async def test_a_process_that_ignores_the_signal_is_killed(build: Build, tmp_path: Path) -> None:
    trapped = tmp_path / "trapped"
    supervisor = build(
        shell(
            "api",
            f"trap '' TERM; touch {trapped}; while :; do sleep 1000 & wait $!; done",
            ready=ready_when_exists(trapped),
            stop_timeout=timedelta(milliseconds=20),
        )
    )
    await supervisor.start()
    pid = pid_of(supervisor, "api")

    await supervisor.stop()

    wait_gone(pid)


async def test_killing_everything_ends_a_stop_that_waits(build: Build, tmp_path: Path) -> None:
    trapped = tmp_path / "trapped"
    supervisor = build(
        shell(
            "api",
            f"trap '' TERM; touch {trapped}; while :; do sleep 1000 & wait $!; done",
            ready=ready_when_exists(trapped),
            stop_timeout=timedelta(hours=1),
        )
    )
    await supervisor.start()
    pid = pid_of(supervisor, "api")
    stopping = asyncio.create_task(supervisor.stop())

    supervisor.kill_all()
    async with asyncio.timeout(10):
        await stopping

    wait_gone(pid)


async def test_children_in_a_session_of_their_own_are_gone_after_the_stop(
    build: Build, tmp_path: Path
) -> None:
    script = (
        "import os, pathlib, subprocess, sys, time;"
        "p = subprocess.Popen(['sleep', '1000'], start_new_session=True);"
        "pathlib.Path(sys.argv[1] + '.new').write_text(str(p.pid));"
        "os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(1000)"
    )
    below = tmp_path / "below"
    command = (sys.executable, "-c", script, str(below))
    supervisor = build(ProcessSpec(name="worker", command=command, ready=ready_when_exists(below)))
    await supervisor.start()

    await supervisor.stop()

    wait_gone(int(below.read_text()))


async def test_stopping_while_processes_start_leaves_nothing(build: Build) -> None:
    probed = asyncio.Event()

    async def never_ready() -> bool:
        probed.set()
        return False

    supervisor = build(shell("api", "exec sleep 1000", ready=never_ready))
    starting = asyncio.create_task(supervisor.start())
    async with asyncio.timeout(10):
        await probed.wait()
    pid = pid_of(supervisor, "api")

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    wait_gone(pid)


async def test_lines_reach_the_terminal_behind_an_aligned_name_and_the_log(
    build: Build, output: io.StringIO, tmp_path: Path
) -> None:
    supervisor = build(
        shell("api", "echo [bold]one; printf two", one_shot=True, on_terminal=True),
        shell("worker", "true", one_shot=True, on_terminal=True),
    )

    await supervisor.start()

    assert output.getvalue() == "api    │ [bold]one\napi    │ two\n"
    assert (tmp_path / "api.log").read_text() == "[bold]one\ntwo"
