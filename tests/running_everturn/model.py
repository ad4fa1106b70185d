"""The control of a scripted model that another process serves."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

from tests.fakes.scripted_model.raw_answers import RawAnswer
from tests.fakes.scripted_model.request_log import RequestRecord
from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.process import free_port

_STARTED_WITHIN_S = 30
_PAUSE_S = 0.02


class ModelControl:
    """Scripts, watches and releases a scripted model through its endpoints under `/demo`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def script(self, **script: object) -> None:
        """Queue how one matching request is answered; the fields are those of `Script`."""
        response = await self._http.post("/demo/scripts", json=script)
        assert response.status_code == httpx.codes.CREATED, response.text

    async def release(self, gate: str) -> None:
        """Let the answers go on that are held at this gate."""
        response = await self._http.post(f"/demo/release/{gate}")
        assert response.status_code == httpx.codes.NO_CONTENT, response.text

    async def requests(
        self, match: str, *, wait_for: int = 0, ended: bool = False
    ) -> list[dict[str, Any]]:
        """Return the requests whose newest user text contains `match`."""
        query: dict[str, str | int | bool] = {"match": match, "wait_for": wait_for, "ended": ended}
        response = await self._http.get("/demo/requests", params=query)
        assert response.status_code == httpx.codes.OK, response.text
        listed: list[dict[str, Any]] = response.json()["requests"]
        return listed


class RemoteModel:
    """A scripted model in a process of its own: what a test does delays no answer of it.

    Its methods are those of `ScriptedModel`.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[tuple[Self, str]]:
        """Start the process, and yield the model with its address."""
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fakes.scripted_model", str(port), "0", "0"
        )
        url = f"http://127.0.0.1:{port}"
        try:
            with httpx.Client(base_url=url, trust_env=False) as http:
                await _accepting(url)
                yield cls(http), url
        finally:
            process.terminate()
            await process.wait()

    def add(self, script: Script) -> None:
        """Queue a script for the next request that it matches."""
        self._do("POST", "scripts", content=script.model_dump_json())

    def add_raw(self, answer: RawAnswer) -> None:
        """Queue bytes for the next requests that they match, before all scripts."""
        self._do("POST", "raw-answers", content=answer.model_dump_json())

    def clear_scripts(self) -> None:
        """Forget the scripts and raw answers that no request has used."""
        self._do("DELETE", "scripts")

    def release(self, name: str) -> None:
        """Open a gate."""
        self._do("POST", f"release/{name}")

    def requests_matching(self, match: str, *, ended: bool = False) -> list[RequestRecord]:
        """Return the requests whose newest user text contains `match`, or of them the ended."""
        return self._listed(match, ended=ended)

    async def wait_for_request(
        self, n: int = 1, timeout_s: float = 10.0, *, match: str = "", ended: bool = False
    ) -> RequestRecord:
        """Return the n-th request that matches, counted from one. Errors: TimeoutError."""
        await self.wait_until(
            lambda: len(self._listed(match, ended=ended)) >= n, timeout_s=timeout_s
        )
        return self._listed(match, ended=ended)[n - 1]

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Return as soon as the condition holds, asked again and again. Errors: TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 -- the condition is about another process
                await asyncio.sleep(_PAUSE_S)

    def _listed(self, match: str, *, ended: bool) -> list[RequestRecord]:
        listed = self._do("GET", "requests", params={"match": match, "ended": ended})
        return [_record(seen) for seen in listed.json()["requests"]]

    def _do(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 -- of httpx
        response = self._http.request(method, f"/demo/{path}", **options)
        assert response.is_success, response.text
        return response


def _record(seen: dict[str, Any]) -> RequestRecord:
    kept = ("sequence", "received_at", "request_id", "model", "body", "status")
    return RequestRecord(
        **{name: seen[name] for name in kept}, ended=seen["ended"], on_change=lambda: None
    )


async def _accepting(url: str) -> None:
    async with asyncio.timeout(_STARTED_WITHIN_S), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                await http.get(url)
            except httpx.ConnectError:
                await asyncio.sleep(_PAUSE_S)
            else:
                return
