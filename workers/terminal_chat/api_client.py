"""Owns the requests of this client; what an answer means for the person is not decided here."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import JsonValue, SecretStr

from workers.terminal_chat.answers import (
    Chat,
    ChatMessage,
    check,
    read,
    read_credentials,
)
from workers.terminal_chat.bearer import BearerToken
from workers.terminal_chat.credentials import CredentialFile
from workers.terminal_chat.errors import UnreachableError

# The API sends a comment every 15 s; three missing ones mean that the connection is dead.
_TIMEOUT = httpx2.Timeout(10.0, read=45.0)
_MESSAGE_PAGES = 10


@dataclass(frozen=True)
class OutgoingMessage:
    """A message to a chat, and the key that lets it be sent twice and run once."""

    chat_id: str
    content: str
    model: str | None = None
    idempotency_key: str = field(default_factory=lambda: str(uuid4()))


class ApiClient:
    """The API at one address, on behalf of whoever is signed in there.

    Errors: each request may raise ApiError, SignedOutError, UnreachableError and
    UnreadableAnswerError; the two streams let httpx2.TransportError through, as theirs are resumed.
    """

    def __init__(
        self,
        url: str,
        credentials: CredentialFile,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        base_url = f"{url}/api/v1"
        self.url = url
        self.credentials = credentials
        self._http = httpx2.AsyncClient(
            auth=BearerToken(credentials, refresh_url=f"{base_url}/auth/refresh"),
            base_url=base_url,
            timeout=_TIMEOUT,
            transport=transport,
            # A proxy of the environment never serves this machine's own addresses.
            mounts=None if transport else {"all://127.0.0.1": None, "all://localhost": None},
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def sign_up(self, *, email: str, password: SecretStr) -> None:
        """Create an account and keep its tokens."""
        await self._obtain_tokens("/auth/signup", email=email, password=password)

    async def log_in(self, *, email: str, password: SecretStr) -> None:
        """Exchange a password for tokens and keep them."""
        await self._obtain_tokens("/auth/login", email=email, password=password)

    async def check_sign_in(self) -> None:
        """Make sure that the kept tokens are accepted, refreshing them where needed."""
        check(await self._request("GET", "/auth/me"))

    async def create_chat(self, title: str) -> Chat:
        """Create a chat."""
        return read(Chat, await self._request("POST", "/chats", json={"title": title})).data

    async def chat(self, chat_id: str) -> Chat:
        """Return the chat of that id."""
        return read(Chat, await self._request("GET", f"/chats/{chat_id}")).data

    async def chats(self, *, limit: int) -> list[Chat]:
        """Return the first `limit` chats in the API's order, which is the latest first."""
        return read(list[Chat], await self._request("GET", "/chats", params={"limit": limit})).data

    async def messages(self, chat_id: str) -> list[ChatMessage]:
        """Return the messages of a chat, oldest first, at most a thousand of them."""
        messages: list[ChatMessage] = []
        params: dict[str, str | int] = {"limit": 100}
        for _ in range(_MESSAGE_PAGES):
            response = await self._request("GET", f"/chats/{chat_id}/messages", params=params)
            page = read(list[ChatMessage], response)
            messages += page.data
            if page.meta.next_cursor is None:
                break
            params["cursor"] = page.meta.next_cursor
        # Ids are UUIDv7, ordered by time.
        return sorted(messages, key=lambda message: message.id)

    async def cancel_turn(self, turn_id: str) -> None:
        """Ask for the end of a turn; its stream says when it has ended."""
        check(await self._request("POST", f"/turns/{turn_id}/cancel"))

    async def decide(
        self, turn_id: str, tool_call_id: str, decision: Mapping[str, JsonValue]
    ) -> None:
        """Tell what the person decided about a tool call; the turn's stream goes on from there."""
        path = approval_path(turn_id, tool_call_id)
        check(await self._request("POST", path, json=decision))

    @asynccontextmanager
    async def send_message(self, message: OutgoingMessage) -> AsyncIterator[httpx2.Response]:
        """Send a message and open the answer to it, which is a stream unless its turn must wait.

        Idempotency: the same message may be sent again, and is the same turn.
        """
        body = {"content": message.content, "stream": True}
        if message.model is not None:
            body["model"] = message.model
        headers = {"Idempotency-Key": message.idempotency_key}
        path = f"/chats/{message.chat_id}/messages"
        async with self._http.stream("POST", path, json=body, headers=headers) as response:
            yield await _checked(response)

    @asynccontextmanager
    async def turn_events(self, turn_id: str, *, after: str) -> AsyncIterator[httpx2.Response]:
        """Open the stream of a turn, behind the event `after` or from its start if empty."""
        headers = {"Last-Event-ID": after} if after else {}
        path = f"/turns/{turn_id}/events"
        async with self._http.stream("GET", path, headers=headers) as response:
            yield await _checked(response)

    async def _obtain_tokens(self, path: str, *, email: str, password: SecretStr) -> None:
        body = {"email": email, "password": password.get_secret_value()}
        response = await self._request("POST", path, json=body, signed=False)
        self.credentials.save(read_credentials(response, email=email))

    async def _request(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, JsonValue] | None = None,
        params: Mapping[str, str | int] | None = None,
        signed: bool = True,
    ) -> httpx2.Response:
        auth = httpx2.USE_CLIENT_DEFAULT if signed else None
        try:
            return await self._http.request(method, path, json=json, params=params, auth=auth)
        except httpx2.TransportError as error:
            raise UnreachableError(self.url) from error


def approval_path(turn_id: str, tool_call_id: str) -> str:
    """Return where a tool call is decided about, below the API's base."""
    return f"/turns/{turn_id}/approvals/{quote(tool_call_id, safe='')}"


async def _checked(response: httpx2.Response) -> httpx2.Response:
    if not response.is_success:
        await response.aread()
        check(response)
    return response
