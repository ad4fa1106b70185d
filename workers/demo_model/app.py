"""The demo model's one endpoint: `POST /v1/messages`, streamed or in one piece."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from workers.demo_model import wire
from workers.demo_model.answers import Answer, Usage, input_tokens_of, make_answer
from workers.demo_model.prompt import JsonObject, read_prompt
from workers.demo_model.rules import blocks_by_rules


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an answer is streamed. Units: seconds."""

    delay_to_first_s: float = 0.0
    delay_between_s: float = 0.0


AT_ONCE: Final = Pace()
_UNREADABLE: Final = wire.Refusal(400, "The request is not one of the Messages API.")


def create_app(pace: Pace = AT_ONCE) -> Starlette:
    """Return the ASGI application that answers by the rules."""
    return Starlette(
        routes=[
            Route("/v1/messages", partial(_create_message, pace), methods=["POST"]),
            Route("/v1/messages/count_tokens", _count_tokens, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _no_endpoint},
    )


async def _count_tokens(request: Request) -> Response:
    try:
        body = json.loads(await request.body())
        counted: JsonObject = {"input_tokens": input_tokens_of(body)}
    except (ValueError, LookupError, TypeError, AttributeError):
        return _refused(_UNREADABLE)
    return Response(wire.encode_json(counted), 200, _headers(), "application/json")


async def _create_message(pace: Pace, request: Request) -> Response:
    try:
        body = json.loads(await request.body())
        prompt = read_prompt(body)
    except (ValueError, LookupError, TypeError, AttributeError):
        return _refused(_UNREADABLE)
    answer = make_answer(
        prompt.model,
        blocks_by_rules(prompt),
        max_tokens=prompt.max_tokens,
        input_tokens=prompt.input_tokens,
    )
    if body.get("stream"):
        return StreamingResponse(
            _events(answer, pace), headers=_headers(), media_type="text/event-stream"
        )
    await asyncio.sleep(pace.delay_to_first_s)
    return Response(wire.message_body(answer), 200, _headers(), "application/json")


async def _events(answer: Answer, pace: Pace) -> AsyncIterator[bytes]:
    await asyncio.sleep(pace.delay_to_first_s)
    opening = Usage(input_tokens=answer.usage.input_tokens, output_tokens=1)
    yield wire.message_start(answer, opening)
    for index, block in enumerate(answer.blocks):
        yield wire.content_block_start(index, block)
        for _, delta in wire.content_block_deltas(index, block):
            yield delta
            await asyncio.sleep(pace.delay_between_s)
        yield wire.content_block_stop(index)
    yield wire.message_delta(answer) + wire.MESSAGE_STOP


async def _no_endpoint(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _refused(wire.Refusal(status, "No such endpoint."))


def _refused(refusal: wire.Refusal) -> Response:
    headers = _headers()
    body: JsonObject = refusal.as_json(headers["request-id"])
    return Response(wire.encode_json(body), refusal.status, headers, "application/json")


def _headers() -> dict[str, str]:
    return {"request-id": f"req_{uuid4().hex[:24]}", "cache-control": "no-cache"}
