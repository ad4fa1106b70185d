"""An API on loopback whose turns follow a script; for tests of clients of the real one.

It speaks the wire of the API as far as a chat client uses it, and drops connections on demand.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

ScriptedEvent = tuple[str, dict[str, Any]]

_WHEN = "2026-01-31T09:00:00.000000Z"
_USER = {
    "version": 1,
    "id": "u",
    "email": "ada@example.com",
    "displayName": None,
    "role": "user",
    "createdAt": _WHEN,
    "updatedAt": _WHEN,
}


class ConnectionCutError(Exception):
    """Ends a response early, so that the server closes the connection."""


def message(role: str, content: str, **more: object) -> dict[str, Any]:
    """Return a stored message."""
    return {
        "id": str(uuid.uuid4()),
        "chatId": "c",
        "turnId": "t",
        "role": role,
        "content": content,
        "status": "completed",
        "createdAt": _WHEN,
        **more,
    }


def chat(title: str | None, chat_id: str | None = None) -> dict[str, Any]:
    """Return a chat."""
    return {
        "version": 1,
        "id": chat_id or str(uuid.uuid4()),
        "title": title,
        "archived": False,
        "createdAt": _WHEN,
        "updatedAt": _WHEN,
    }


def done(content: str, *, status: str = "completed") -> ScriptedEvent:
    """Return the last event of a turn whose stored message is `content`."""
    usage = {"inputTokens": 812, "outputTokens": 96, "cacheReadTokens": 0, "cacheWriteTokens": 0}
    return "done", {
        "status": status,
        "assistantMessage": message("assistant", content),
        "usage": usage,
        "costUsd": "0.001200",
    }


def step(number: int, attempt: int = 1) -> ScriptedEvent:
    """Return the beginning of an attempt of a step."""
    return "step", {"step": number, "attempt": attempt, "model": "scripted-model"}


def delta(number: int, text: str, attempt: int = 1) -> ScriptedEvent:
    """Return a piece of text of an attempt of a step."""
    return "delta", {"step": number, "attempt": attempt, "text": text}


def tool_call(
    number: int,
    status: str,
    *,
    output: str | None = None,
    name: str = "calculator",
    call_id: str = "",
    tool_input: object = None,
) -> ScriptedEvent:
    """Return where a tool call of a step stands; the step's only one needs no id."""
    call = {"step": number, "toolCallId": call_id or f"call-{number}", "name": name}
    called_with = {"expression": "6*7"} if tool_input is None else tool_input
    return "tool_call", {**call, "status": status, "input": called_with, "output": output}


@dataclass
class ScriptedTurn:
    """The events of a turn; one without `done` goes on when it is cancelled, if it does.

    `when_decided` is how it goes on after a decision about a tool call, by the call's id.
    """

    events: list[ScriptedEvent]
    when_cancelled: list[ScriptedEvent] = field(default_factory=list)
    when_decided: dict[str, list[ScriptedEvent]] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    async def event(self, number: int) -> ScriptedEvent:
        """Return the event of that number, as soon as it happens."""
        while number >= len(self.events):
            self._grown.clear()
            await self._grown.wait()
        return self.events[number]

    def cancel(self) -> None:
        """Go on as it does when it is cancelled."""
        self.go_on(self.when_cancelled)
        self.when_cancelled = []

    def decide(self, call_id: str) -> None:
        """Go on as it does after a decision."""
        self.go_on(self.when_decided.pop(call_id, []))

    def go_on(self, events: list[ScriptedEvent]) -> None:
        """Go on with these events."""
        self.events += events
        self._grown.set()


@dataclass
class SentDecision:
    """A decision about a tool call as it arrived."""

    turn_id: str
    call_id: str
    body: dict[str, Any]


@dataclass
class SentMessage:
    """A message as it arrived."""

    chat_id: str
    idempotency_key: str
    body: dict[str, Any]


class ScriptedApi:
    """The state of the API, its script, and a record of what it was asked."""

    def __init__(self) -> None:
        self.accounts: dict[str, str] = {"ada@example.com": "correct horse battery"}
        self.chats: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.script: list[ScriptedTurn] = []
        # How many events each connection delivers before it is cut within the next one.
        self.cuts: list[int] = []
        # The responses to the next messages, instead of their turns.
        self.refusals: list[Response] = []
        self.accept_without_stream = False
        self.sent: list[SentMessage] = []
        self.resumed_after: list[str] = []
        self.cancelled: list[str] = []
        self.decisions: list[SentDecision] = []
        # The responses to the next decisions; after an error the turn does not continue.
        self.decision_refusals: list[Response] = []
        self.refreshes = 0
        self._turns: dict[str, ScriptedTurn] = {}
        self._access_tokens: set[str] = set()
        self._refresh_tokens: set[str] = set()
        self._tokens_issued = 0

    def expire_access_tokens(self) -> None:
        """Refuse every access token that was given out so far."""
        self._access_tokens.clear()

    def end_sessions(self) -> None:
        """Refuse every token that was given out so far."""
        self._access_tokens.clear()
        self._refresh_tokens.clear()

    def application(self) -> Starlette:
        """Return the ASGI application."""
        base = "/api/v1"
        return Starlette(
            routes=[
                Route(f"{base}/auth/signup", self._sign_up, methods=["POST"]),
                Route(f"{base}/auth/login", self._log_in, methods=["POST"]),
                Route(f"{base}/auth/refresh", self._refresh, methods=["POST"]),
                Route(f"{base}/auth/me", self._me),
                Route(f"{base}/chats", self._create_chat, methods=["POST"]),
                Route(f"{base}/chats", self._list_chats),
                Route(f"{base}/chats/{{chat}}", self._chat),
                Route(f"{base}/chats/{{chat}}/messages", self._send, methods=["POST"]),
                Route(f"{base}/chats/{{chat}}/messages", self._messages),
                Route(f"{base}/turns/{{turn}}/events", self._events),
                Route(f"{base}/turns/{{turn}}/cancel", self._cancel, methods=["POST"]),
                Route(f"{base}/turns/{{turn}}/approvals/{{call}}", self._decide, methods=["POST"]),
            ]
        )

    async def _sign_up(self, request: Request) -> Response:
        body = await request.json()
        if body["email"] in self.accounts:
            return failure(409, "CONFLICT", "An account with this email already exists.")
        self.accounts[body["email"]] = body["password"]
        return self._issue(body["email"], status=201)

    async def _log_in(self, request: Request) -> Response:
        body = await request.json()
        if self.accounts.get(body["email"]) != body["password"]:
            return failure(401, "UNAUTHENTICATED", "Wrong email or password.")
        return self._issue(body["email"])

    async def _refresh(self, request: Request) -> Response:
        token = (await request.json())["refreshToken"]
        if token not in self._refresh_tokens:
            return failure(401, "UNAUTHENTICATED", "The refresh token is not valid.")
        self._refresh_tokens.remove(token)
        self.refreshes += 1
        return self._issue("ada@example.com")

    def _issue(self, email: str, *, status: int = 200) -> Response:
        self._tokens_issued += 1
        access, refresh = f"access-{self._tokens_issued}", f"refresh-{self._tokens_issued}"
        self._access_tokens.add(access)
        self._refresh_tokens.add(refresh)
        tokens = {"accessToken": access, "refreshToken": refresh, "tokenType": "bearer"}
        user = {**_USER, "email": email}
        return _success({**tokens, "expiresIn": 900, "user": user}, status=status)

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("Authorization", "")[7:] in self._access_tokens:
            return None
        return failure(401, "UNAUTHENTICATED", "The access token is not valid.")

    async def _me(self, request: Request) -> Response:
        return self._refusal(request) or _success(_USER)

    async def _create_chat(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        created = chat((await request.json()).get("title"))
        self.chats.insert(0, created)
        return _success(created, status=201)

    async def _list_chats(self, request: Request) -> Response:
        limit = int(request.query_params.get("limit", "20"))
        return self._refusal(request) or _success(self.chats[:limit])

    async def _chat(self, request: Request) -> Response:
        found = [chat for chat in self.chats if chat["id"] == request.path_params["chat"]]
        if not found:
            return self._refusal(request) or failure(404, "NOT_FOUND", "Chat not found.")
        return self._refusal(request) or _success(found[0])

    async def _messages(self, request: Request) -> Response:
        return self._refusal(request) or _success(self.history)

    async def _send(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        key = request.headers["Idempotency-Key"]
        self.sent.append(SentMessage(request.path_params["chat"], key, await request.json()))
        if self.refusals:
            return self.refusals.pop(0)
        turn = self._turns.get(key) or self.script.pop(0)
        self._turns[key] = self._turns[turn.id] = turn
        if self.accept_without_stream:
            return _success({"turn": _turn(turn.id, "queued")}, status=202)
        return self._stream(turn, after="")

    async def _events(self, request: Request) -> Response:
        after = request.headers.get("Last-Event-ID", "")
        self.resumed_after.append(after)
        turn = self._turns[request.path_params["turn"]]
        return self._refusal(request) or self._stream(turn, after=after)

    async def _cancel(self, request: Request) -> Response:
        turn = self._turns[request.path_params["turn"]]
        self.cancelled.append(turn.id)
        turn.cancel()
        return self._refusal(request) or _success(_turn(turn.id, "running"))

    async def _decide(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        turn, call_id = self._turns[request.path_params["turn"]], request.path_params["call"]
        self.decisions.append(SentDecision(turn.id, call_id, await request.json()))
        if self.decision_refusals:
            return self.decision_refusals.pop(0)
        turn.decide(call_id)
        return _success(
            {
                "turnId": turn.id,
                "step": 1,
                "toolCallId": call_id,
                "name": "calculator",
                "status": "requested",
                "decision": "approved",
                "input": {},
            }
        )

    def _stream(self, turn: ScriptedTurn, *, after: str) -> Response:
        first = int(after.partition("-")[2]) + 1 if after else 0
        cut = first + self.cuts.pop(0) if self.cuts else None
        return StreamingResponse(
            _stream(turn, first=first, cut=cut),
            media_type="text/event-stream",
            headers={"X-Turn-Id": turn.id},
        )


async def _stream(turn: ScriptedTurn, *, first: int, cut: int | None) -> AsyncIterator[bytes]:
    yield b": keep-alive\n\n"
    number, name = first, ""
    while name != "done":
        name, data = await turn.event(number)
        data = {**data, "turnId": turn.id} if name == "turn" else data
        text = f"id: 7-{number}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        if number == cut:
            yield text.encode()[:-7]
            raise ConnectionCutError
        yield text.encode()
        number += 1


def _turn(turn_id: str, status: str) -> dict[str, Any]:
    return {
        "id": turn_id,
        "chatId": "c",
        "status": status,
        "model": "scripted-model",
        "userMessageId": "m",
        "usage": {},
        "costUsd": "0",
        "createdAt": _WHEN,
    }


def _success(data: object, *, status: int = 200) -> Response:
    return JSONResponse({"data": data, "meta": {"requestId": "r-1"}}, status_code=status)


def failure(
    status: int, code: str, message: str, *, retryable: bool = False, details: object = None
) -> Response:
    """Return an answer that refuses."""
    error = {"code": code, "message": message, "retryable": retryable, "details": details}
    return JSONResponse({"error": error, "meta": {"requestId": "r-1"}}, status_code=status)


@asynccontextmanager
async def serving(api: ScriptedApi) -> AsyncIterator[str]:
    """Serve `api` on a free port of loopback, in the running loop, and yield its address."""
    config = uvicorn.Config(
        api.application(),
        port=0,
        log_level="critical",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve())
    await asyncio.wait_for(server.is_up.wait(), 10)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


class _Server(uvicorn.Server):
    """A server that says when it is up, instead of being asked again and again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        await super().startup(*args, **kwargs)
        self.is_up.set()
