"""Owns a client of the API that shares no code with Everturn, so that both can't be wrong alike."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import uuid4

import httpx

PASSWORD: Final = "correct horse battery staple"

_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    id: str
    name: str
    data: dict[str, Any]

    @property
    def status(self) -> object:
        return self.data.get("status")


def rebuild(events: Iterable[Event]) -> str:
    """Return the answer by the one rule: `step` clears its step, `delta` appends to it."""
    steps: dict[int, str] = {}
    for event in events:
        if event.name == "step":
            steps[event.data["step"]] = ""
        elif event.name == "delta":
            steps[event.data["step"]] += event.data["text"]
    return "".join(text for _, text in sorted(steps.items()))


def names(events: Iterable[Event]) -> list[str]:
    return [event.name for event in events]


class EventStream:
    """An open stream and what came out of it until now."""

    def __init__(self, response: httpx.Response) -> None:
        self.turn_id = response.headers["x-turn-id"]
        self.events: list[Event] = []
        self._coming = _read_events(response.aiter_bytes())

    @property
    def last_id(self) -> str | None:
        """The id from which another connection goes on."""
        return self.events[-1].id if self.events else None

    async def next(self) -> Event | None:
        """Return the next event, or None where the server has closed the stream.

        Errors: httpx.TransportError where the connection broke.
        """
        event = await anext(self._coming, None)
        self.events += [event] if event is not None else []
        return event

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        """Return the next event that is wanted. Errors: AssertionError if the stream ends first."""
        async with asyncio.timeout(_WITHIN_S):
            while (event := await self.next()) is not None:
                if wanted(event):
                    return event
        raise AssertionError(f"the stream ended after {names(self.events)}")

    async def until_text(self, text: str) -> None:
        """Return when the answer so far is `text`."""
        await self.until(lambda _: rebuild(self.events) == text)

    async def to_end(self) -> list[Event]:
        """Read until the server closes the stream, and return all events of it."""
        async with asyncio.timeout(_WITHIN_S):
            while await self.next() is not None:
                pass
        return self.events

    async def until_broken(self) -> list[Event]:
        """Read until the connection breaks or is closed, and return all events of it."""
        try:
            return await self.to_end()
        except httpx.TransportError:
            return self.events


class Client:
    """One person at the API."""

    def __init__(self, http: httpx.AsyncClient, email: str) -> None:
        self._http = http
        self.email = email

    @classmethod
    @asynccontextmanager
    async def signed_up(cls, api: str) -> AsyncIterator[Self]:
        """Open a client for somebody new."""
        async with _http(api) as http:
            yield await cls(http, f"{uuid4().hex}@example.com")._enter("/auth/signup", 201)

    @classmethod
    @asynccontextmanager
    async def signed_in(cls, api: str, email: str) -> AsyncIterator[Self]:
        """Open a client for somebody who has signed up before."""
        async with _http(api) as http:
            yield await cls(http, email)._enter("/auth/login", 200)

    async def _enter(self, path: str, status: int) -> Self:
        account = {"email": self.email, "password": PASSWORD}
        entered = data_of(await self._http.post(path, json=account), status)
        self._http.headers["Authorization"] = f"Bearer {entered['accessToken']}"
        return self

    @property
    def authorization(self) -> str:
        """What it signs in by."""
        return self._http.headers["Authorization"]

    async def get(self, path: str) -> httpx.Response:
        return await self._http.get(path)

    async def post(self, path: str, body: object = None) -> httpx.Response:
        return await self._http.post(path, json=body)

    async def patch(self, path: str, body: object) -> httpx.Response:
        return await self._http.patch(path, json=body)

    async def new_chat(self) -> str:
        chat = data_of(await self._http.post("/chats", json={"title": "A test"}), 201)
        return str(chat["id"])

    async def send(self, chat_id: str, content: str, **more: object) -> httpx.Response:
        """Send a message and wait for the response as a whole."""
        body = {"content": content, "stream": False, **more}
        return await self._http.post(f"/chats/{chat_id}/messages", json=body)

    @asynccontextmanager
    async def ask(
        self, content: str, *, chat_id: str | None = None, **more: object
    ) -> AsyncIterator[EventStream]:
        """Send a message, in a new chat unless told, and open its stream."""
        chat_id = chat_id or await self.new_chat()
        body = {"content": content, "stream": True, **more}
        async with self._streamed("POST", f"/chats/{chat_id}/messages", json=body) as stream:
            yield stream

    @asynccontextmanager
    async def follow(self, turn_id: str, *, after: str | None = None) -> AsyncIterator[EventStream]:
        """Open the stream of a turn, behind the event `after` if one is given."""
        headers = {} if after is None else {"Last-Event-ID": after}
        async with self._streamed("GET", f"/turns/{turn_id}/events", headers=headers) as stream:
            yield stream

    async def events(self, turn_id: str, *, after: str | None = None) -> list[Event]:
        """Return a turn's events, up to the end of its stream."""
        async with self.follow(turn_id, after=after) as stream:
            return await stream.to_end()

    async def turn(self, turn_id: str) -> dict[str, Any]:
        turn: dict[str, Any] = data_of(await self.get(f"/turns/{turn_id}"))
        return turn

    async def messages(self, chat_id: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = data_of(await self.get(f"/chats/{chat_id}/messages"))
        return listed

    async def cancel(self, turn_id: str) -> dict[str, Any]:
        turn: dict[str, Any] = data_of(await self._http.post(f"/turns/{turn_id}/cancel"), 202)
        return turn

    @asynccontextmanager
    async def _streamed(self, method: str, path: str, **request: Any) -> AsyncIterator[EventStream]:  # noqa: ANN401 -- passed on to httpx
        async with self._http.stream(method, path, **request) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise AssertionError(f"{response.status_code}: {response.text}")
            assert response.headers["content-type"].startswith("text/event-stream")
            yield EventStream(response)


def _http(api: str) -> httpx.AsyncClient:
    timeout = httpx.Timeout(30.0, read=_WITHIN_S)
    return httpx.AsyncClient(base_url=f"{api}/api/v1", timeout=timeout, trust_env=False)


def data_of(response: httpx.Response, status: int = 200) -> Any:  # noqa: ANN401 -- any JSON
    """Return what the response carries. Errors: AssertionError for another status."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    return response.json()["data"]


async def _read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Read events as browsers do, but for carriage returns, which the server does not send."""
    waiting = b""
    async for chunk in chunks:
        *frames, waiting = (waiting + chunk).split(b"\n\n")
        for frame in frames:
            fields = _fields(frame.decode())
            if "data" in fields:
                yield Event(fields["id"], fields["event"], json.loads(fields["data"]))


def _fields(frame: str) -> Mapping[str, str]:
    lines = [line for line in frame.split("\n") if line and not line.startswith(":")]
    parted = [line.partition(":") for line in lines]
    fields = {name: value.removeprefix(" ") for name, _, value in parted}
    assert len(fields) == len(lines), f"a field came twice in {frame!r}"
    return fields
