"""A user of a running Everturn: the public client, on single connections that a test watches.

The client shares no code with the server, so that both can't be wrong in the same way.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, Unpack
from uuid import uuid4

import httpx2

from everturn_client import AsyncEverturn, AsyncTurnStream, Session, StreamInterruptedError
from everturn_client.chats import IfBusy, MessageOptions
from everturn_client.models import Resource

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


def row(resource: Resource) -> dict[str, Any]:
    """Return a resource as it was on the wire."""
    return resource.model_dump(mode="json", by_alias=True, exclude_unset=True)


class EventStream:
    """An open connection to a turn's stream, and the events that it has sent so far."""

    def __init__(self, stream: AsyncTurnStream) -> None:
        self.turn_id = stream.turn_id
        self.events: list[Event] = []
        self._coming = aiter(stream)

    @property
    def last_id(self) -> str | None:
        """The id after which another connection resumes."""
        return self.events[-1].id if self.events else None

    async def next(self) -> Event | None:
        """Return the next event, or None after `done`.

        Errors: StreamInterruptedError where the connection broke or ended early.
        """
        event = await anext(self._coming, None)
        if event is None:
            return None
        data = row(event)
        self.events.append(Event(data.pop("id"), data.pop("type"), data))
        return self.events[-1]

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
        """Read until the connection breaks or is closed, and return all its events."""
        try:
            return await self.to_end()
        except StreamInterruptedError:
            return self.events


class Client:
    """One person at the API. Nothing is retried or resumed unless a test does so."""

    def __init__(self, api: AsyncEverturn, http: httpx2.AsyncClient, session: Session) -> None:
        self.api = api
        self.email = str(session.user.email)
        self.user_id = session.user.id
        self._http = http
        self._session = session

    @classmethod
    @asynccontextmanager
    async def signed_up(cls, api: str) -> AsyncIterator[Self]:
        """Open a client for a new user."""
        async with _open(api) as (client, http):
            email = f"{uuid4().hex}@example.com"
            yield cls(client, http, await client.auth.signup(email=email, password=PASSWORD))

    @classmethod
    @asynccontextmanager
    async def signed_in(cls, api: str, email: str, password: str = PASSWORD) -> AsyncIterator[Self]:
        """Open a client for a user who has signed up before."""
        async with _open(api) as (client, http):
            yield cls(client, http, await client.auth.login(email=email, password=password))

    @property
    def token(self) -> str:
        """The access token."""
        return self._session.access_token.get_secret_value()

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        **more_headers: str,
    ) -> httpx2.Response:
        """Return the response to a request, whatever its status."""
        headers = {"Authorization": f"Bearer {token or self.token}", **more_headers}
        return await self._http.request(method, path, json=body, headers=headers)

    async def new_chat(self) -> str:
        return (await self.api.chats.create(title="A test")).id

    async def send(self, chat_id: str, content: str) -> dict[str, Any]:
        """Send a message and return its answer."""
        return row(await self.api.messages.create(chat_id, content=content))

    @asynccontextmanager
    async def ask(
        self,
        content: str,
        *,
        chat_id: str | None = None,
        if_busy: IfBusy | None = None,
        **options: Unpack[MessageOptions],
    ) -> AsyncIterator[EventStream]:
        """Send a message, by default in a new chat, and open its stream."""
        chat_id = chat_id or await self.new_chat()
        async with self.api.messages.stream(
            chat_id, content=content, if_busy=if_busy, reconnect_s=0, **options
        ) as stream:
            yield EventStream(stream)

    @asynccontextmanager
    async def follow(self, turn_id: str, *, after: str | None = None) -> AsyncIterator[EventStream]:
        """Open the stream of a turn, after an event if one is given."""
        async with self.api.turns.events(turn_id, after=after or "", reconnect_s=0) as stream:
            yield EventStream(stream)

    async def events(self, turn_id: str, *, after: str | None = None) -> list[Event]:
        """Return a turn's events, up to the end of its stream."""
        async with self.follow(turn_id, after=after) as stream:
            return await stream.to_end()

    async def turn(self, turn_id: str) -> dict[str, Any]:
        return row(await self.api.turns.get(turn_id))

    async def messages(self, chat_id: str) -> list[dict[str, Any]]:
        return [row(message) async for message in self.api.messages.list(chat_id)]

    async def cancel(self, turn_id: str) -> dict[str, Any]:
        return row(await self.api.turns.cancel(turn_id))


@asynccontextmanager
async def _open(api: str) -> AsyncIterator[tuple[AsyncEverturn, httpx2.AsyncClient]]:
    # A stack with a certificate authority of its own names it here.
    authority = os.environ.get("EVERTURN_CA_FILE")
    verify = ssl.create_default_context(cafile=authority) if api.startswith("https:") else False
    async with httpx2.AsyncClient(base_url=f"{api}/api/v1", trust_env=False, verify=verify) as http:
        yield AsyncEverturn(api, max_retries=0, http_client=http), http
