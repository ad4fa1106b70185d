"""The API in several processes on one port: each answers, and those that die are started anew."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.running_everturn.client import PASSWORD, Client, data_of
from tests.running_everturn.process import EverturnDev, everturn_dev
from tests.running_everturn.waiting import eventually


@pytest.fixture(scope="module")
async def everturn() -> AsyncIterator[EverturnDev]:
    """A stack whose API has two processes."""
    with tempfile.TemporaryDirectory(prefix="everturn-tests-") as folder:
        # Nothing is forgotten for its age within a test.
        settings = {"EVERTURN_API_PROCESSES": "2", "EVERTURN_ACCOUNT_CACHE_S": "60"}
        running = everturn_dev(Path(folder), ephemeral=True, **settings)
        async with running as everturn:
            yield everturn


def processes_of(everturn: EverturnDev) -> list[psutil.Process]:
    return psutil.Process(everturn.pids()["api"]).children()


async def counted(everturn: EverturnDev) -> int:
    """Return how many requests for `/auth/me` the metrics of any process tell of."""
    async with httpx.AsyncClient(trust_env=False) as http:
        told = (await http.get(f"{everturn.addresses['api']}/metrics")).text
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in told.splitlines()
        if line.startswith("everturn_http_requests_total") and "/auth/me" in line
    )


async def statuses_by_connections(
    everturn: EverturnDev, authorization: str, count: int
) -> list[int]:
    """Ask over as many connections, which are handed to the processes in turn."""
    statuses = []
    for _ in range(count):
        token = {"Authorization": authorization}
        async with httpx.AsyncClient(trust_env=False, headers=token) as http:
            response = await http.get(f"{everturn.addresses['api']}/api/v1/auth/me")
            statuses.append(response.status_code)
    return statuses


async def answered_by_connections(everturn: EverturnDev, client: Client, count: int) -> None:
    """Ask over as many connections, and be answered."""
    statuses = await statuses_by_connections(everturn, client.authorization, count)
    assert statuses == [200] * count


async def test_processes_share_a_port_and_one_that_dies_is_started_anew(
    everturn: EverturnDev,
) -> None:
    async with Client.signed_up(everturn.addresses["api"]) as client:
        first, second = processes_of(everturn)
        await answered_by_connections(everturn, client, 20)
        before = await counted(everturn)

        first.kill()
        await eventually(
            lambda: _others(everturn, first), lambda found: len(found) == 2 and second in found
        )
        await answered_by_connections(everturn, client, 20)
        answer = await client.send(await client.new_chat(), "What is 6 * 7?")

    assert before == 20
    assert await counted(everturn) == 40
    assert "42" in answer.json()["data"]["assistantMessage"]["content"]


async def test_connections_are_handed_to_the_processes_in_turn(everturn: EverturnDev) -> None:
    address = urlsplit(everturn.addresses["api"])

    async def shares() -> list[int]:
        """Return how many of ten new connections each process has got."""
        before = {process.pid: held(process, address.port) for process in processes_of(everturn)}
        opened = [await asyncio.open_connection(address.hostname, address.port) for _ in range(10)]
        await asyncio.sleep(0.2)
        held_now = {process: held(process, address.port) for process in processes_of(everturn)}
        for _, writer in opened:
            writer.close()
        return [count - before.get(process.pid, 0) for process, count in held_now.items()]

    # A process that has only just started is handed none yet.
    assert await eventually(shares, lambda found: found == [5, 5]) == [5, 5]


async def test_who_has_signed_out_is_out_on_every_process(everturn: EverturnDev) -> None:
    async with Client.signed_up(everturn.addresses["api"]) as client:
        account = {"email": client.email, "password": PASSWORD}
        entered = data_of(await client.post("/auth/login", account))
        bearer = f"Bearer {entered['accessToken']}"
        known = await statuses_by_connections(everturn, bearer, 20)

        await client.post("/auth/logout", {"refreshToken": entered["refreshToken"]})

        await eventually(
            lambda: statuses_by_connections(everturn, bearer, 20),
            lambda statuses: statuses == [401] * 20,
            within_s=20,
        )
    assert known == [200] * 20


def held(process: psutil.Process, port: int | None) -> int:
    """Return how many connections to a port of its own a process has open."""
    return sum(
        connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        for connection in process.net_connections(kind="tcp")
    )


async def test_processes_end_with_the_one_that_started_them(everturn: EverturnDev) -> None:
    parent = psutil.Process(everturn.pids()["api"])
    children = parent.children()

    parent.kill()

    async def left() -> list[psutil.Process]:
        return [child for child in children if child.is_running()]

    assert await eventually(left, lambda found: not found) == []


async def _others(everturn: EverturnDev, gone: psutil.Process) -> list[psutil.Process]:
    return [process for process in processes_of(everturn) if process != gone]
