"""A workflow engine on loopback: it records the calls of its webhooks, and answers as scripted.

It can answer at once, later by a callback, wrongly, half or not at all. What it signs and believes
it computes by itself.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import httpx
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fixtures.serving import serving

SECRET: Final = "the secret that both sides know"


@dataclass(frozen=True)
class ReceivedCall:
    """A request that a webhook got."""

    headers: Mapping[str, str]
    raw: bytes
    hung_up: Callable[[], Awaitable[None]] = field(repr=False, compare=False)

    @property
    def body(self) -> dict[str, Any]:
        """What it says."""
        parsed: dict[str, Any] = json.loads(self.raw)
        return parsed

    @property
    def callback_path(self) -> str:
        """Where the answer may go later, below the address of the API."""
        path: str = self.body["callbackUrl"].partition("/api/v1")[2]
        return path

    def is_signed(self, secret: str = SECRET) -> bool:
        """Whether the signature is that of the body, by the secret."""
        expected = signature_of(
            self.raw,
            secret=secret,
            message_id=self.headers["webhook-id"],
            timestamp=self.headers["webhook-timestamp"],
        )
        return self.headers["webhook-signature"] == expected


Behaviour: TypeAlias = Callable[[ReceivedCall], Awaitable[Response]]


class WebhookEngine:
    """The webhooks of one engine; each path is one, and answers `"done"` unless scripted."""

    def __init__(self) -> None:
        self.origin = ""
        self.calls: defaultdict[str, list[ReceivedCall]] = defaultdict(list)
        self._scripts: defaultdict[str, deque[Behaviour]] = defaultdict(deque)
        self._arrived: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def url(self, hook: str) -> str:
        """Return the address of a webhook."""
        return f"{self.origin}/hooks/{hook}"

    def script(self, hook: str, *behaviours: Behaviour) -> None:
        """Answer the next calls so, and all after them like the last one."""
        self._scripts[hook].extend(behaviours)

    async def wait_for_call(self, hook: str) -> ReceivedCall:
        """Return the first call of a webhook once it is there."""
        async with asyncio.timeout(20):
            await self._arrived[hook].wait()
        return self.calls[hook][0]

    def application(self) -> FastAPI:
        """Return the ASGI application."""
        return FastAPI(
            routes=[Route("/hooks/{hook}", self._answer, methods=["POST"])], openapi_url=None
        )

    async def _answer(self, request: Request) -> Response:
        hook = request.path_params["hook"]
        body = await request.body()

        async def hung_up() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        call = ReceivedCall(dict(request.headers), body, hung_up)
        self.calls[hook].append(call)
        self._arrived[hook].set()
        script = self._scripts[hook] or deque([at_once("done")])
        behaviour = script.popleft() if len(script) > 1 else script[0]
        return await behaviour(call)


def at_once(value: object, *, status: int = 200) -> Behaviour:
    """Answer with JSON."""
    return always(lambda: JSONResponse(value, status_code=status))


def later() -> Behaviour:
    """Take the call, and answer nothing yet."""
    return always(lambda: Response(status_code=202))


def later_once(released: asyncio.Event) -> Behaviour:
    """Take the call as soon as the test lets it, and answer nothing yet."""

    async def take(_: ReceivedCall) -> Response:
        await released.wait()
        return Response(status_code=202)

    return take


def failing(status: int, *, headers: Mapping[str, str] | None = None, text: str = "") -> Behaviour:
    """Answer with a status."""
    return always(lambda: PlainTextResponse(text, status_code=status, headers=dict(headers or {})))


def a_web_page(status: int = 200) -> Behaviour:
    """Answer as engines do that are not set up."""
    return always(lambda: HTMLResponse("<h1>Welcome</h1>", status_code=status))


def typed(content: bytes, media_type: str | None) -> Behaviour:
    """Answer with bytes of a type."""
    return always(lambda: Response(content, media_type=media_type))


def breaking_off() -> Behaviour:
    """End the connection in the midst of the answer."""
    return always(lambda: Response(b"{", headers={"Content-Length": "1000"}))


def never(released: asyncio.Event) -> Behaviour:
    """Answer nothing until the test is over."""

    async def hang(_: ReceivedCall) -> Response:
        await released.wait()
        return Response(status_code=204)

    return hang


def until_hung_up(seen: asyncio.Event) -> Behaviour:
    """Send no response, and set an event when the caller disconnects."""

    async def wait(call: ReceivedCall) -> Response:
        await call.hung_up()
        seen.set()
        return Response(status_code=204)

    return wait


def always(respond: Callable[[], Response]) -> Behaviour:
    """Answer without looking at the call."""

    async def behave(_: ReceivedCall) -> Response:
        return respond()

    return behave


def signature_of(body: bytes, *, secret: str, message_id: str, timestamp: str) -> str:
    """Return a signature as Standard Webhooks has it."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(secret.encode(), signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def signed_headers(
    body: bytes, callback_path: str, *, secret: str = SECRET, age_s: int = 0
) -> dict[str, str]:
    """Return the headers of a callback."""
    message_id = callback_path.rpartition("/")[2]
    timestamp = str(int(time.time()) - age_s)
    signature = signature_of(body, secret=secret, message_id=message_id, timestamp=timestamp)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature,
    }


async def call_back(
    http: httpx.AsyncClient,
    callback_path: str,
    answer: object,
    *,
    secret: str = SECRET,
    age_s: int = 0,
) -> httpx.Response:
    """Answer a call later; a body of bytes goes out as it is."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    headers = signed_headers(body, callback_path, secret=secret, age_s=age_s)
    return await http.post(callback_path, content=body, headers=headers)


@asynccontextmanager
async def webhook_engine() -> AsyncIterator[WebhookEngine]:
    """Serve an engine on a free port of loopback, in the running loop."""
    engine = WebhookEngine()
    async with serving(engine.application()) as origin:
        engine.origin = origin
        yield engine
