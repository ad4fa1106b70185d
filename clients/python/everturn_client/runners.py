"""The two runners: they perform the actions of a script, blocking or on an event loop."""

import asyncio
import threading
import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

import httpx2

from everturn_client.calls import Call
from everturn_client.exchange import (
    Action,
    Close,
    Connection,
    Emit,
    Exchange,
    Open,
    Read,
    Refresh,
    Script,
    Send,
    Sleep,
)

T = TypeVar("T")

STREAM_TIMEOUT: Final = httpx2.Timeout(10.0, read=45.0)
"""The API sends a comment every 15 s; three missing ones mean that the connection is dead."""

# A proxy of the environment never serves this machine's own addresses.
DIRECT: Final = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}


class Blocking:
    """Performs actions in the calling thread."""

    def __init__(self, exchange: Exchange, http: httpx2.Client) -> None:
        self.exchange = exchange
        self.http = http
        # A refresh token serves once: two refreshes at a time would end the session.
        self._refreshing = threading.Lock()

    def call(self, call: Call[T]) -> T:
        """Make a call and return what its response carries."""
        return self.drive(self.exchange.perform(call))

    def drive(self, script: Script[T]) -> T:
        """Run a script that emits nothing to its end."""
        result: T = self.advance(script)[1]
        return result

    def advance(self, script: Script[T]) -> tuple[Any, Any]:
        """Run a script until it emits something or ends; return what it emitted, or its result."""
        reply: Any = None
        error: BaseException | None = None
        while True:
            try:
                action = _next(script, reply, error)
            except StopIteration as stop:
                return None, stop.value
            if isinstance(action, Emit):
                return action.value, None
            reply, error = None, None
            try:
                reply = self._perform(action)
            except Exception as raised:  # noqa: BLE001 -- the script decides what it means
                error = raised

    def _perform(self, action: Action) -> Any:  # noqa: ANN401 -- each action has its own
        match action:
            case Send():
                response = self.http.send(_request(self.http, self.exchange, action), stream=True)
                if isinstance(action, Open) and response.is_success:
                    return Connection(response, response.iter_bytes())
                try:
                    response.read()
                finally:
                    response.close()
                return response
            case Read(connection):
                return next(connection.chunks, None)  # type: ignore[arg-type]  # opened above
            case Close(connection):
                connection.response.close()
            case Sleep(seconds):
                time.sleep(seconds)
            case Refresh(used):
                with self._refreshing:
                    self.drive(self.exchange.refresh(used))
            case _:
                raise AssertionError(action)
        return None


class Awaiting:
    """Performs actions on the running event loop."""

    def __init__(self, exchange: Exchange, http: httpx2.AsyncClient) -> None:
        self.exchange = exchange
        self.http = http
        # A refresh token serves once: two refreshes at a time would end the session.
        self._refreshing = asyncio.Lock()

    async def call(self, call: Call[T]) -> T:
        """Make a call and return what its response carries."""
        return await self.drive(self.exchange.perform(call))

    async def drive(self, script: Script[T]) -> T:
        """Run a script that emits nothing to its end."""
        result: T = (await self.advance(script))[1]
        return result

    async def advance(self, script: Script[T]) -> tuple[Any, Any]:
        """Run a script until it emits something or ends; return what it emitted, or its result."""
        reply: Any = None
        error: BaseException | None = None
        while True:
            try:
                action = _next(script, reply, error)
            except StopIteration as stop:
                return None, stop.value
            if isinstance(action, Emit):
                return action.value, None
            reply, error = None, None
            try:
                reply = await self._perform(action)
            except Exception as raised:  # noqa: BLE001 -- the script decides what it means
                error = raised

    async def _perform(self, action: Action) -> Any:  # noqa: ANN401 -- each action has its own
        match action:
            case Send():
                request = _request(self.http, self.exchange, action)
                response = await self.http.send(request, stream=True)
                if isinstance(action, Open) and response.is_success:
                    return Connection(response, response.aiter_bytes())
                try:
                    await response.aread()
                finally:
                    await response.aclose()
                return response
            case Read(connection):
                return await anext(connection.chunks, None)  # type: ignore[arg-type]  # opened above
            case Close(connection):
                await connection.response.aclose()
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Refresh(used):
                async with self._refreshing:
                    await self.drive(self.exchange.refresh(used))
            case _:
                raise AssertionError(action)
        return None


def _next(
    script: Generator[Action, Any, Any], reply: object, error: BaseException | None
) -> Action:
    return script.send(reply) if error is None else script.throw(error)


def _request(
    http: httpx2.Client | httpx2.AsyncClient, exchange: Exchange, action: Send
) -> httpx2.Request:
    call = action.call
    form: dict[str, Any] = {"json": call.body}
    if call.file is not None:
        form = {"data": call.body, "files": {"file": tuple(call.file)}}
    return http.build_request(
        call.method,
        f"{exchange.url}/api/v1{call.path}",
        params=call.query or None,
        headers=action.headers,
        timeout=STREAM_TIMEOUT if isinstance(action, Open) else _timeout(exchange.timeout_s),
        **form,
    )


def _timeout(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=min(seconds, 10.0))
