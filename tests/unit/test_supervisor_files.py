"""What a stack keeps in files: its data directory, ports, logs, and which processes are its own."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_supervisor import wait_gone
from workers.embedded.addresses import StackAddresses, without_password
from workers.embedded.child import ProcessRegister
from workers.embedded.data_directory import DataDirectory
from workers.embedded.errors import (
    DataDirectoryInUseError,
    DataDirectoryNotWritableError,
    PortTakenError,
)
from workers.embedded.logs import ProcessLog
from workers.embedded.ports import Ports, require_free


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_data_directory_and_its_secrets_are_for_the_owner_alone(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path / "data")

    assert directory.secrets.valkey
    assert mode(directory.path) == 0o700
    assert mode(directory.secrets_file) == 0o600
    directory.close()


def test_secrets_stay_the_same_between_starts(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path / "data")
    expected = first.secrets
    first.close()
    second = DataDirectory.open(tmp_path / "data")

    assert expected == second.secrets
    second.close()


def test_a_second_start_on_the_same_directory_names_the_first(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)

    with pytest.raises(DataDirectoryInUseError) as caught:
        DataDirectory.open(tmp_path)

    expected = (
        f"The data directory {tmp_path} is in use by another everturn dev (pid {os.getpid()}); "
        "stop that one, or choose another directory with --data-dir."
    )
    assert expected == str(caught.value)
    directory.close()


def test_a_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataDirectoryNotWritableError) as caught:
        DataDirectory.open(tmp_path / "file" / "data")

    expected = (
        f"The data directory {tmp_path}/file/data can't be written (Not a directory); "
        "choose another with --data-dir, or use --ephemeral."
    )
    assert expected == str(caught.value)


def test_an_ephemeral_directory_is_removed_at_the_end() -> None:
    directory = DataDirectory.open(ephemeral=True)
    assert directory.path.is_dir()

    directory.close()

    assert not directory.path.exists()


def test_a_port_is_remembered_between_starts(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"

    first = Ports(file).of("postgres")

    assert first == Ports(file).of("postgres")


def test_a_remembered_port_in_use_is_replaced_by_another(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = Ports(file).of("postgres")
    with socket.create_server(("127.0.0.1", first)):
        assert first != Ports(file).of("postgres")


def test_no_two_servers_get_the_same_port(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json")
    usual = ports.of("temporal")

    assert usual != ports.of("temporalUi", preferred=usual)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            require_free(port)

    expected = (
        f"Port {port} is already in use on 127.0.0.1. Stop the other program, "
        "or choose another port with --port."
    )
    assert expected == str(caught.value)


def test_addresses_are_readable_only_by_the_owner(tmp_path: Path) -> None:
    file = tmp_path / "addresses.json"
    addresses = StackAddresses(
        database="d", migration_database="m", redis="r", temporal="t", temporal_ui="u",
        api="http://127.0.0.1:8000", model="model",
    )  # fmt: skip

    addresses.write(file)

    assert mode(file) == 0o600
    assert '"docs": "http://127.0.0.1:8000/docs"' in file.read_text()
    assert '"m"' not in file.read_text()


def test_a_shown_url_has_no_password() -> None:
    assert without_password("redis://:secret@127.0.0.1:1/0") == "redis://127.0.0.1:1/0"
    assert without_password("postgresql://a:secret@h:1/d") == "postgresql://a@h:1/d"


def test_a_long_log_is_put_aside_at_the_start(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_bytes(b"x" * (10 * 1024 * 1024 + 1))

    ProcessLog("api", tmp_path)

    assert [tmp_path / "api.log.1"] == list(tmp_path.iterdir())


SUPERVISE = """
import asyncio, sys
from pathlib import Path
from workers.embedded.logs import Terminal
from workers.embedded.supervisor import ProcessSpec
from workers.embedded.child import ProcessRegister
from workers.embedded.supervisor import Supervisor

async def main():
    folder = Path(sys.argv[1])
    specs = [ProcessSpec(name=name, command=("sleep", "1000")) for name in ("api", "worker")]
    supervisor = Supervisor(
        specs, logs=folder, register=ProcessRegister(folder), terminal=Terminal()
    )
    await supervisor.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_killed_supervisor_takes_its_processes_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"ready\n"
        pids = json.loads((tmp_path / "processes.json").read_text())
        supervisor.kill()

    assert {"api", "worker"} == pids.keys()
    for pid in pids.values():
        wait_gone(pid)


def test_orphans_of_a_dead_supervisor_are_ended(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as left:
        ProcessRegister(tmp_path).add("worker", left.pid)

        ended = ProcessRegister(tmp_path).end_leftovers()

        assert ended == ["worker"]
        wait_gone(left.pid)


def test_another_process_with_a_recorded_id_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        ProcessRegister(tmp_path).add("worker", stranger.pid)
        file = tmp_path / "identities.json"
        identities = json.loads(file.read_text())
        identities["worker"]["created"] -= 3600
        file.write_text(json.dumps(identities))

        ended = ProcessRegister(tmp_path).end_leftovers()

        assert ended == []
        assert stranger.poll() is None
        stranger.kill()
