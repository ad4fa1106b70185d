"""A provider of embeddings on loopback that speaks the wires of Voyage and OpenAI, by a script."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fixtures.serving import serving as serving_application

KEY = "key-of-the-tests"
OWN_DIMENSIONS = 8

Answer = Callable[[Request, list[dict[str, Any]]], Awaitable[Response]]
"""Builds the response from the request and the entries of a correct answer."""


@dataclass
class EmbeddingRequest:
    """A request as it arrived."""

    path: str
    authorization: str | None
    body: dict[str, Any]


class EmbeddingApi:
    """The provider: what it is to answer next, and a record of what it was asked."""

    def __init__(self) -> None:
        # The answers to the next requests; later ones get correct answers.
        self.script: list[Answer] = []
        self.requests: list[EmbeddingRequest] = []

    def application(self) -> FastAPI:
        """Return the ASGI application."""
        voyage = Route("/v1/embeddings", self._embed, methods=["POST"])
        openai = Route("/compatible/embeddings", self._embed, methods=["POST"])
        return FastAPI(routes=[voyage, openai], openapi_url=None)

    async def _embed(self, request: Request) -> Response:
        body = json.loads(await request.body())
        key = request.headers.get("Authorization")
        self.requests.append(EmbeddingRequest(request.url.path, key, body))
        dimensions = body.get("output_dimension") or body.get("dimensions") or OWN_DIMENSIONS
        entries = [
            {"object": "embedding", "index": index, "embedding": vector_of(text, dimensions)}
            for index, text in enumerate(body["input"])
        ]
        answer = self.script.pop(0) if self.script else honestly
        return await answer(request, entries)


def vector_of(text: str, dimensions: int) -> list[float]:
    """Return numbers that depend on the text alone; their length is not 1."""
    blocks = (hashlib.sha256(f"{place}:{text}".encode()).digest() for place in range(dimensions))
    return [int.from_bytes(block[:4], "big") / 2**30 - 2.0 for block in blocks]


async def honestly(_: Request, entries: list[dict[str, Any]]) -> Response:
    """Answer as the provider does."""
    return JSONResponse(_listed(entries))


async def shuffled(_: Request, entries: list[dict[str, Any]]) -> Response:
    """Answer out of order, each vector with its right index."""
    return JSONResponse(_listed(entries[1::2] + entries[::2]))


def changed(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Answer:
    """Answer with other entries; what JSON has no words for, as NaN, is sent as Python does."""

    async def answer(_: Request, entries: list[dict[str, Any]]) -> Response:
        return Response(json.dumps(_listed(change(entries))), media_type="application/json")

    return answer


def with_vector(vector: object) -> Answer:
    """Answer with this as the first vector."""
    return changed(lambda entries: [{**entries[0], "embedding": vector}, *entries[1:]])


def saying(text: str, *, status: int = 200, **headers: str) -> Answer:
    """Answer with this text, whatever was asked."""

    async def answer(_request: Request, _entries: list[dict[str, Any]]) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return HTMLResponse(text, status_code=status, headers=named)

    return answer


async def repeating_the_request(request: Request, entries: list[dict[str, Any]]) -> Response:
    """Refuse in words that repeat the key and the texts."""
    words = f"{request.headers.get('Authorization')} {json.loads(await request.body())['input']}"
    return JSONResponse({"error": {"message": words}, "data": words}, status_code=400)


async def never(request: Request, _: list[dict[str, Any]]) -> Response:
    """Answer nothing until the client has left."""
    await _departure(request)
    return Response()


async def breaking_off(_: Request, entries: list[dict[str, Any]]) -> Response:
    """Close the connection in the middle of the answer."""
    whole = json.dumps(_listed(entries)).encode()

    async def half() -> AsyncIterator[bytes]:
        yield whole[: len(whole) // 2]

    return StreamingResponse(half(), headers={"Content-Length": str(len(whole))})


async def dribbling(request: Request, _: list[dict[str, Any]]) -> Response:
    """Send a byte now and then, each well within any patience, and come to no end."""

    async def drops() -> AsyncIterator[bytes]:
        departure = asyncio.create_task(_departure(request))
        while not departure.done():
            yield b" "
            await asyncio.wait([departure], timeout=0.02)

    return StreamingResponse(drops())


async def endlessly(_request: Request, _entries: list[dict[str, Any]]) -> Response:
    """Send as fast as it goes, and come to no end while the client reads."""

    async def flood() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 16_384
            await asyncio.sleep(0)

    return StreamingResponse(flood())


def _listed(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": entries, "model": "scripted", "usage": {"total_tokens": 7}}


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def serving(api: EmbeddingApi) -> AsyncIterator[str]:
    """Serve `api` on a free port of loopback and yield its origin."""
    async with serving_application(api.application()) as origin:
        yield origin
