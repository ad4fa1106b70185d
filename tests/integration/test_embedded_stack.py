"""The embedded servers as they are, and `everturn dev` with stand-ins for our own processes."""

import http.server
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from redis.asyncio import Redis
from temporalio.client import Client

from services.settings import Settings
from tests.running_everturn.process import still_running
from workers.dev import curl_example
from workers.embedded.errors import PostgresPasswordError, ProcessDiedError
from workers.embedded.servers import EmbeddedServers
from workers.embedded.stack import Commands, DevelopmentStack

pytestmark = pytest.mark.timeout(180)

# Answers every GET with 200 on the port of the setting that is its first argument.
STAND_IN = """
import http.server, os, sys

class Yes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

print("serving", flush=True)
port = int(os.environ.get(sys.argv[1]) or sys.argv[-1])
http.server.HTTPServer(("127.0.0.1", port), Yes).serve_forever()
"""


def stand_in(setting: str) -> tuple[str, ...]:
    return (sys.executable, "-c", STAND_IN, setting)


STAND_INS = Commands(
    migrate=("true",),
    api=stand_in("EVERTURN_API_PORT"),
    demo_model=stand_in("NO_SUCH_SETTING"),
    workers={
        "worker-turns": stand_in("EVERTURN_METRICS_PORT"),
        "worker-tools": stand_in("EVERTURN_METRICS_PORT"),
    },
)

DEV = """
import sys
import threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_embedded_stack import STAND_INS
from workers.dev import run_dev
run_dev(Path(sys.argv[2]), port=int(sys.argv[3]), commands=STAND_INS)
"""


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "")


@pytest.fixture
def data() -> Iterator[Path]:
    # Not tmp_path: each run of pytest closes the folder above it to other users, even while another
    # run uses it, but the user that root runs Postgres as must be able to traverse it.
    with tempfile.TemporaryDirectory(prefix="everturn-tests-") as folder:
        yield Path(folder) / "data"


@contextmanager
def everturn_dev(data: Path, *, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", DEV, str(Path(__file__).parent), str(data), str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Ready in"):
            break
    return said


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert still_running(alive) == []


async def test_data_and_addresses_outlive_a_stop(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        first = servers.addresses
        connection = await asyncpg.connect(first.migration_database)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()
        async with Redis.from_url(first.redis) as valkey:
            await valkey.set("kept", "42")

    async with EmbeddedServers(data) as servers:
        assert first == servers.addresses
        connection = await asyncpg.connect(servers.addresses.migration_database)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()
        async with Redis.from_url(servers.addresses.redis) as valkey:
            # Half a stream would be worse than none: what Valkey had is replayed from the database.
            assert await valkey.get("kept") is None


async def test_postgres_serves_its_data_after_kill_9(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        url = servers.addresses.migration_database
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

        servers.kill("postgres")
        await servers.wait_ready("postgres")

        connection.terminate()
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()


async def test_the_role_of_the_application_has_no_power() -> None:
    async with EmbeddedServers(ephemeral=True) as servers:
        connection = await asyncpg.connect(servers.addresses.database)
        role = await connection.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole FROM pg_roles "
            "WHERE rolname = current_user"
        )
        assert role is not None
        assert list(role.values()) == [False] * 4
        assert await connection.fetchval("SELECT upper('ß' || 'ä') COLLATE \"default\"") == "ßÄ"
        await connection.close()


async def test_temporal_keeps_its_workflows_across_kill_9(data: Path) -> None:
    async with EmbeddedServers(data, namespaces=("tests",)) as servers:
        client = await Client.connect(servers.addresses.temporal, namespace="tests")
        await client.start_workflow("Waiting", id="waiting", task_queue="nobody")

        servers.kill("temporal")
        await servers.wait_ready("temporal")

        client = await Client.connect(servers.addresses.temporal, namespace="tests")
        kept = await client.get_workflow_handle("waiting").describe()
        assert kept.id == "waiting"


async def test_a_lost_password_is_named(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        secrets_file = servers.directory.secrets_file
    secrets_file.unlink()

    with pytest.raises(PostgresPasswordError):
        await EmbeddedServers(data).open()


async def test_the_whole_stack_can_be_killed_stopped_and_started_by_name() -> None:
    stack = DevelopmentStack(ephemeral=True, settings=Settings(api_port=0), commands=STAND_INS)
    async with stack:
        first = stack.pid("worker-turns")
        stack.kill("worker-turns")
        await stack.wait_ready("worker-turns")
        assert stack.pid("worker-turns") != first

        await stack.stop("valkey")
        assert stack.pid("valkey") is None
        await stack.start("valkey")
        async with Redis.from_url(stack.addresses.redis) as valkey:
            assert await valkey.ping()


async def test_addresses_json_is_there_while_the_stack_is(data: Path) -> None:
    file = data / "addresses.json"
    settings = Settings(api_port=0)
    async with DevelopmentStack(data, settings=settings, commands=STAND_INS) as stack:
        written = json.loads(file.read_text())
        keys = ["api", "docs", "temporal", "temporalUi", "database", "redis", "model", "metrics"]
        assert list(written) == keys
        assert written["database"] == stack.addresses.database
        async with httpx.AsyncClient(trust_env=False) as client:
            for address in (written["api"], written["model"], written["temporalUi"]):
                response = await client.get(address)
                assert response.status_code == 200

    assert not file.exists()


async def test_a_failing_migration_fails_the_start(data: Path) -> None:
    commands = Commands(migrate=("sh", "-c", "echo no such revision; exit 1"))
    stack = DevelopmentStack(data, settings=Settings(api_port=0), commands=commands)

    with pytest.raises(ProcessDiedError, match="migrate could not be started: exit code 1"):
        await stack.open()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_everturn_dev_stops_everything_at_a_signal(data: Path, number: signal.Signals) -> None:
    with everturn_dev(data) as process:
        said = wait_until_ready(process)
        running = descendants(process)
        process.send_signal(number)
        last, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert last.endswith("Everturn has stopped.\n")
    assert_gone(running)
    assert "a demo with fixed rules" in said
    secrets = json.loads((data / "secrets.json").read_text())
    assert not any(secret in said for secret in secrets.values())


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_everturn_dev_killed_leaves_nothing_and_starts_again(data: Path) -> None:
    with everturn_dev(data) as process:
        wait_until_ready(process)
        running = descendants(process)
        process.kill()
        assert_gone(running)

    with everturn_dev(data) as process:
        assert "Ready in" in wait_until_ready(process)
        process.terminate()
        process.communicate(timeout=60)


def test_a_second_everturn_dev_on_the_same_data_is_refused(data: Path) -> None:
    with everturn_dev(data) as first:
        wait_until_ready(first)
        with everturn_dev(data) as second:
            _, error = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"in use by another everturn dev (pid {first.pid})" in error
        first.terminate()
        first.communicate(timeout=60)


def test_a_taken_port_is_named_before_anything_starts(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with everturn_dev(data, port=port) as process:
            said, error = process.communicate(timeout=60)

    assert process.returncode == 1
    assert said == ""
    expected = (
        f"Port {port} is already in use on 127.0.0.1. Stop the other program, "
        "or choose another port with --port.\n"
    )
    assert error == expected
    assert not data.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
async def test_only_the_postgres_user_can_open_roots_data(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        pid = servers.pid("postgres")
        assert psutil.Process(pid).uids().real != 0
        assert mode(data) == 0o710
        assert mode(data / "secrets.json") == 0o600
        assert mode(data / "postgres") == 0o700


class SignUpOnce(http.server.BaseHTTPRequestHandler):
    """Answers as the API does, to the requests of the example and to no others."""

    signed_up = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = self._answer(body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def _answer(self, body: dict[str, object]) -> tuple[int, object]:
        token = {"data": {"accessToken": "t1", "refreshToken": "r1", "user": {"id": "u1"}}}
        if self.path == "/api/v1/auth/signup" and not SignUpOnce.signed_up:
            SignUpOnce.signed_up = True
            return 201, token
        if self.path == "/api/v1/auth/login":
            return 200, token
        if self.headers["Authorization"] != "Bearer t1":
            return 409, {"error": {"code": "CONFLICT", "message": "taken"}}
        if self.path == "/api/v1/chats":
            return 201, {"data": {"id": "c1"}}
        assert self.path == "/api/v1/chats/c1/messages"
        return 200, {"streamed": body}

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("shell", [s for s in ("sh", "bash", "zsh") if shutil.which(s)])
def test_the_curl_example_works_as_pasted_and_pasted_again(shell: str) -> None:
    SignUpOnce.signed_up = False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SignUpOnce) as server:
        threading.Thread(target=server.serve_forever).start()
        example = curl_example(f"http://127.0.0.1:{server.server_address[1]}")
        for _ in range(2):
            run = subprocess.run(
                [shell, "-c", example],
                env=os.environ | {"no_proxy": "127.0.0.1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert run.stderr == ""
            assert json.loads(run.stdout) == {
                "streamed": {"content": "What is 6 * 7?", "stream": True}
            }
        server.shutdown()
