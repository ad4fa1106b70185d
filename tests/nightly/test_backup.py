"""docs/backup.md, run literally: dump while turns run, lose everything, restore, go on."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from tests.e2e.test_installation import ROOT, blocks, free_ports, no_settings, run_page, with_values
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.bare_servers import BareServers
from tests.running_everturn.client import PASSWORD, Client, names, rebuild
from tests.running_everturn.process import EVERTURN
from tests.running_everturn.stack import scripted_model
from tests.running_everturn.waiting import eventually
from workers.embedded.postgres import programs

PAGE: Final = (ROOT / "docs" / "backup.md").read_text()
ADMIN_EMAIL: Final = "admin@example.com"
VALUES, ROLE, DUMP, RESTORE, ERASE = blocks("sh", PAGE)
QUICK: Final = {
    "EVERTURN_SWEEP_INTERVAL_S": "1",
    "EVERTURN_RATE_LIMITS": "false",
    "EVERTURN_MEMORY_EXTRACTION": "false",
}


@dataclass(frozen=True, slots=True)
class Site:
    """An installation: its servers, and the folder of its settings."""

    servers: BareServers
    home: Path
    port: int

    @property
    def postgres(self) -> str:
        """Where its Postgres is, as the superuser."""
        return urlsplit(self.servers.addresses.migration_database)._replace(path="").geturl()

    def installation(self, model_url: str) -> str:
        """Return steps 1, 3 and 4 of the installation."""
        values = {
            "postgres": self.postgres,
            "redis": self.servers.addresses.redis,
            "temporal": self.servers.addresses.temporal,
            "namespace": "everturn",
            "anthropic_key": "a key",
            "anthropic_url": model_url,
            "admin_email": ADMIN_EMAIL,
            "admin_password": PASSWORD,
            "home": self.home,
            "port": self.port,
            "metrics": 0,
        }
        given, _, database, settings, *_ = blocks("sh")
        return "\n".join([with_values(given, values), database, settings])

    async def run(self, script: str) -> None:
        """Run commands of the page. Errors: AssertionError with what they wrote."""
        log = self.home / "page.log"
        path = f"export PATH={Path(sys.executable).parent}:{programs()}:$PATH\n"
        assert await run_page(path + script, log) == 0, log.read_text()

    @asynccontextmanager
    async def processes(self) -> AsyncIterator[str]:
        """Run an API and a worker of all queues, and kill them at the end."""
        commands = {
            "api": ("api",),
            "worker": (
                "worker",
                *(f"--queue={queue}" for queue in ("turns", "tools", "background")),
            ),
        }
        with no_settings() as environment:
            async with AsyncExitStack() as running:
                for name, command in commands.items():
                    await running.enter_async_context(self._process(name, command, environment))
                await eventually(self._is_ready, bool, within_s=60)
                yield f"http://127.0.0.1:{self.port}"

    async def _is_ready(self) -> bool:
        async with httpx.AsyncClient(trust_env=False) as http:
            try:
                health = await http.get(f"http://127.0.0.1:{self.port}/api/v1/health/ready")
            except httpx.TransportError:
                return False
        return bool(health.json()["data"]["status"] == "ok")

    @asynccontextmanager
    async def _process(
        self, name: str, command: tuple[str, ...], environment: dict[str, str]
    ) -> AsyncIterator[None]:
        folder = self.home / "etc"
        with (folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(EVERTURN, *command),
                cwd=folder,
                env=environment | QUICK,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def query(self, statement: str) -> list[asyncpg.Record]:
        """Ask the database as its superuser."""
        connection = await asyncpg.connect(f"{self.postgres}/everturn")
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    async with BareServers() as servers:
        yield Site(servers, folder, free_ports(1))


@dataclass(frozen=True, slots=True)
class Before:
    """What one user had at the moment of the dump."""

    email: str
    token: str
    finished: str
    messages: list[dict[str, object]]
    running: str
    queued: str
    waiting: str


def add_scripts(model: ScriptedModel) -> None:
    call = ToolCall(name="calculator", input={"expression": "6 * 7"})
    for script in (
        Script(match="a finished question", text="A finished answer."),
        Script(match="a slow question", pieces=("Half", " way"), hold="slow", hold_after=1),
        Script(match="a queued question", text="Its turn has come."),
        Script(match="a careful question", tool_calls=(call,)),
        Script(match="a new question", text="A new answer."),
    ):
        model.add(script)


async def lead_a_life(client: Client) -> Before:
    """Leave turns behind in every state."""
    chat = await client.new_chat()
    async with client.ask("a finished question", chat_id=chat) as finished:
        await finished.to_end()
    busy = await client.new_chat()
    async with client.ask("a slow question", chat_id=busy) as running:
        await running.until_text("Half")
    async with client.ask("a queued question", chat_id=busy, if_busy="enqueue") as queued:
        await queued.next()
    async with client.ask("a careful question") as waiting:
        await waiting.until(lambda event: event.status == "awaiting_approval")
    return Before(
        email=client.email,
        token=client.token,
        finished=finished.turn_id,
        messages=await client.messages(chat),
        running=running.turn_id,
        queued=queued.turn_id,
        waiting=waiting.turn_id,
    )


@pytest.mark.timeout(300)
async def test_turns_go_on_or_end_after_everything_was_lost_and_restored(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    async with scripted_model() as (model, model_url):
        add_scripts(model)
        async with site(tmp_path / "old") as old:
            migrate = blocks("sh")[4]
            await old.run("\n".join([old.installation(model_url), migrate]))
            async with (
                old.processes() as api,
                Client.signed_in(api, ADMIN_EMAIL) as admin,
                Client.signed_up(api) as client,
                Client.signed_up(api) as leaver,
            ):
                asked = await admin.request("PATCH", "/admin/tools/calculator", {"approval": "ask"})
                assert asked.status_code == 200
                before = await lead_a_life(client)
                values = {"postgres": old.postgres, "home": old.home, "backups": backups}
                await old.run("\n".join([with_values(VALUES, values), ROLE, DUMP]))
                await leaver.api.users.delete(current_password=PASSWORD)
                async with client.ask("a new question") as lost:
                    await lost.to_end()

        model.add(Script(match="a new question", text="A new answer."))
        async with site(tmp_path / "new") as new:
            script = [new.installation(model_url), f"backups={backups}", RESTORE]
            await new.run("\n".join([*script, f"erased={leaver.user_id}", ERASE]))
            async with new.processes() as api, Client.signed_in(api, before.email) as client:
                await check_turns(client, before)
                assert (await client.request("GET", "/chats", token=before.token)).is_success
                gone = await client.request("GET", f"/turns/{lost.turn_id}")
                async with client.ask("a new question") as stream:
                    answer = rebuild(await stream.to_end())
                await check_money(new, client)

    assert gone.status_code == 404
    assert answer == "A new answer."
    assert (backups / "everturn.dump").stat().st_mode & 0o077 == 0


async def check_turns(client: Client, before: Before) -> None:
    """What had ended reads the same; the rest starts or ends."""
    assert await client.messages((await client.turn(before.finished))["chatId"]) == before.messages
    assert rebuild(await client.events(before.finished)) == "A finished answer."

    for turn_id, text in ((before.running, "Half"), (before.waiting, "")):
        events = await client.events(turn_id)
        assert names(events)[-2:] == ["error", "done"]
        assert rebuild(events) == text
        assert events[-2].data["code"] == "SERVICE_UNAVAILABLE"
        assert events[-2].data["retryable"] is True
        assert (await client.turn(turn_id))["status"] == "failed"
    (call,) = [
        event.data for event in await client.events(before.waiting) if event.name == "tool_call"
    ][-1:]
    assert call["status"] == "failed"
    assert rebuild(await client.events(before.queued)) == "Its turn has come."


async def check_money(site: Site, client: Client) -> None:
    """Nothing is reserved any more, and the days hold what the ledger says."""
    usage = (await client.request("GET", "/subscription/usage")).json()["data"]
    month = usage["budget"]["month"]["usd"]
    [ledger] = await site.query(
        "SELECT sum(cost_usd) AS usd, count(*) FILTER (WHERE status = 'open') AS open, "
        f"count(*) AS calls FROM ledger WHERE user_id = '{client.user_id}'"
    )
    assert (ledger["open"], ledger["calls"]) == (0, 5)
    assert Decimal(month["reserved"]) == 0
    assert Decimal(month["used"]) == Decimal(usage["costUsd"]) == ledger["usd"]
