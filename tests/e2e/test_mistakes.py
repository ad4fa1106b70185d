"""Setup mistakes are reported in one line that says what to do."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.client import Client, names
from tests.running_everturn.process import EVERTURN, EverturnDev, environment, everturn_dev, run
from tests.running_everturn.stack import scripted_model
from workers.embedded.fork_server import EVERTURN as FORKED
from workers.embedded.fork_server import ForkServer

Complaint: TypeAlias = Callable[..., Awaitable[str]]

SECRET = "s" * 48
NOWHERE = "127.0.0.1:1"
NO_DATABASE = f"postgresql://everturn:hush@{NOWHERE}/everturn"


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
async def fork_server() -> AsyncIterator[ForkServer]:
    """Starts what imports the application."""
    server = ForkServer()
    yield server
    await server.close()


@pytest.fixture
def complaint(folder: Path, fork_server: ForkServer) -> Complaint:
    """Return `complaint("api", SETTING="value")`: the one line with which a command refuses."""

    async def of_process(*arguments: str, **settings: str) -> str:
        written = folder / "output.txt"
        with written.open("w") as output:
            process = await fork_server.launch(
                (*FORKED, *arguments),
                output=output.fileno(),
                env=environment(**settings),
                cwd=folder,
            )
            assert await process.wait() == 1
        said = written.read_text().splitlines()
        (line,) = (line for line in said if not line.startswith("{"))  # but for what it logs
        return line

    async def of_dev(*arguments: str, **settings: str) -> str:
        ended = await run(EVERTURN, *arguments, folder=folder, **settings)
        assert ended.exit_code == 1
        (line,) = ended.errors.splitlines()
        return line

    def complain(command: str, *arguments: str, **settings: str) -> Awaitable[str]:
        of = of_dev if command == "dev" else of_process
        return of(command, *arguments, **settings)

    return complain


async def test_a_taken_port_is_named(complaint: Complaint) -> None:
    with taken_port() as port:
        said = await complaint("dev", "--ephemeral", "--port", str(port))

    assert said == (
        f"Port {port} is already in use on 127.0.0.1. Stop the other program, "
        "or choose another port with --port."
    )


@pytest.mark.parametrize("arguments", [["dev", "--ephemeral"], ["worker", "--queue", "turns"]])
async def test_a_webhook_of_alerts_without_a_secret_is_refused(
    complaint: Complaint, arguments: list[str]
) -> None:
    url = "https://ops.example.com/alerts"

    said = await complaint(*arguments, EVERTURN_ALERT_WEBHOOK_URL=url)

    assert said == (
        "Invalid settings. Set EVERTURN_ALERT_WEBHOOK_URL and EVERTURN_ALERT_WEBHOOK_SECRET "
        "together."
    )


async def test_a_data_directory_that_cannot_be_written_is_named(
    folder: Path, complaint: Complaint
) -> None:
    (folder / "file").touch()
    data = folder / "file" / "data"

    said = await complaint("dev", "--data-dir", str(data), "--port", "0")

    assert said == (
        f"The data directory {data} can't be written (Not a directory); "
        "choose another with --data-dir, or use --ephemeral."
    )


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["api"], "DATABASE_URL"),
        (["worker", "--queue", "turns"], "DATABASE_URL"),
        (["migrate"], "DATABASE_URL"),
        (["migrate"], "EVERTURN_MIGRATION_DATABASE_URL"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    everturn: EverturnDev, complaint: Complaint, arguments: list[str], variable: str
) -> None:
    settings = {
        "EVERTURN_API_PORT": "0",
        "EVERTURN_AUTH_SECRET": SECRET,
        "ANTHROPIC_API_KEY": "a key",
        "TEMPORAL_ADDRESS": everturn.addresses["temporal"],
        "DATABASE_URL": everturn.addresses["database"],
        variable: NO_DATABASE,
    }

    said = await complaint(*arguments, **settings)

    assert said.startswith(f"The database of {variable} (everturn@{NOWHERE}/everturn) can't be")
    assert "hush" not in said


async def test_a_temporal_that_cannot_be_reached_is_named(
    everturn: EverturnDev, complaint: Complaint
) -> None:
    said = await complaint(
        *("worker", "--queue", "turns"),
        ANTHROPIC_API_KEY="a key",
        DATABASE_URL=everturn.addresses["database"],
        TEMPORAL_ADDRESS=NOWHERE,
    )

    assert said == f"Temporal can't be reached at {NOWHERE}. Check TEMPORAL_ADDRESS, or start it."


@pytest.mark.parametrize("arguments", [["worker", "--queue", "turns"], ["setup-temporal"]])
async def test_a_missing_namespace_is_named(
    everturn: EverturnDev, complaint: Complaint, arguments: list[str]
) -> None:
    settings = {
        "ANTHROPIC_API_KEY": "a key",
        "DATABASE_URL": everturn.addresses["database"],
        "TEMPORAL_ADDRESS": everturn.addresses["temporal"],
        "TEMPORAL_NAMESPACE": "missing",
    }

    said = await complaint(*arguments, **settings)

    assert said == (
        "Temporal has no namespace 'missing'. Set TEMPORAL_NAMESPACE, or create it: "
        "everturn setup-temporal --create-namespace"
    )


async def test_a_temporal_that_cannot_be_reached_is_named_by_its_set_up(
    complaint: Complaint,
) -> None:
    said = await complaint("setup-temporal", TEMPORAL_ADDRESS=NOWHERE)

    assert said == f"Temporal can't be reached at {NOWHERE}. Check TEMPORAL_ADDRESS, or start it."


@pytest.mark.parametrize("arguments", [["api"], ["dev", "--ephemeral"]])
async def test_a_file_of_a_setting_that_cannot_be_read_is_named(
    complaint: Complaint, arguments: list[str]
) -> None:
    said = await complaint(*arguments, EVERTURN_AUTH_SECRET_FILE="/missing/secret")

    assert said == (
        "The file /missing/secret of EVERTURN_AUTH_SECRET_FILE can't be read: "
        "No such file or directory."
    )


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("DATABASE_URL", "mysql://db/x", "DATABASE_URL can't be used: it must begin with post"),
        ("REDIS_URL", "http://redis", "REDIS_URL can't be used: Redis URL must specify one of"),
        (
            *("REDIS_URL", "rediss://redis?ssl_ca_certs=/missing.pem"),
            "REDIS_URL can't be used: ",
        ),
    ],
)
async def test_an_unusable_url_is_named(
    complaint: Complaint, setting: str, value: str, said: str
) -> None:
    unusable = {"EVERTURN_AUTH_SECRET": SECRET, "EVERTURN_API_PORT": "0", setting: value}

    assert (await complaint("api", **unusable)).startswith(said)


async def test_a_worker_without_a_key_names_the_missing_one(
    everturn: EverturnDev, complaint: Complaint
) -> None:
    said = await complaint(
        *("worker", "--queue", "turns"),
        DATABASE_URL=everturn.addresses["database"],
        TEMPORAL_ADDRESS=everturn.addresses["temporal"],
    )

    assert said.startswith("ANTHROPIC_API_KEY is not set. Set it, ")


async def test_without_a_secret_the_api_says_how_to_generate_one(
    everturn: EverturnDev, complaint: Complaint
) -> None:
    said = await complaint(
        "api", EVERTURN_API_PORT="0", DATABASE_URL=everturn.addresses["database"]
    )

    assert said.startswith("EVERTURN_AUTH_SECRET must have at least 32 random characters: ")
    assert "python -c 'import secrets; print(secrets.token_urlsafe(48))'" in said


async def test_an_out_of_range_setting_is_named(complaint: Complaint) -> None:
    said = await complaint("api", EVERTURN_API_PORT="123456")

    assert "EVERTURN_API_PORT" in said


@pytest.fixture
async def everturn_with_wrong_key(folder: Path) -> AsyncIterator[EverturnDev]:
    async with scripted_model() as (model, url):
        model.add(Script(status=401, message="invalid x-api-key", repeat=100))
        wrong: Mapping[str, str] = {"ANTHROPIC_API_KEY": "wrong", "ANTHROPIC_BASE_URL": url}
        async with everturn_dev(folder, ephemeral=True, **wrong) as running:
            yield running
        assert len(model.requests) == 1


async def test_a_wrong_key_fails_the_turn_and_is_named_in_the_workers_log(
    everturn_with_wrong_key: EverturnDev,
) -> None:
    async with Client.signed_up(everturn_with_wrong_key.addresses["api"]) as client:
        async with client.ask("Hello?") as stream:
            events = await stream.to_end()
        turn = await client.turn(stream.turn_id)

    assert names(events)[-2:] == ["error", "done"]
    error, done = events[-2:]
    assert error.data["code"] == "MODEL_REJECTED"
    assert "rejected the API key" in error.data["message"]
    assert done.status == "failed"
    assert turn["error"]["message"] == error.data["message"]
    log = everturn_with_wrong_key.log("worker-turns")
    assert "ANTHROPIC_API_KEY" in log
    assert "Traceback" not in log
