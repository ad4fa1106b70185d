"""The endpoints of the Messages API; those for tests in another process are in `control`."""

import json
import time
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fakes.scripted_model.control import control_routes
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.playback import Playback
from tests.fakes.scripted_model.raw_answers import RawPlayback
from tests.fakes.scripted_model.request_log import RequestRecord, new_request_id
from tests.fakes.scripted_model.validation import find_refusal
from workers.demo_model.prompt import JsonObject
from workers.demo_model.wire import Refusal, encode_json

MAX_BODY_BYTES = 32 * 1024 * 1024
MODEL_NAMES = ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5")


def create_app(model: ScriptedModel) -> Starlette:
    """Return the ASGI application that answers for this model."""
    return Starlette(
        routes=[
            Route("/v1/messages", partial(_create_message, model), methods=["POST"]),
            Route("/v1/messages/count_tokens", partial(_count_tokens, model), methods=["POST"]),
            Route("/v1/models", _list_models, methods=["GET"]),
            *control_routes(model),
        ],
        exception_handlers={HTTPException: _no_endpoint, ClientDisconnect: _client_gone},
    )


async def _create_message(
    model: ScriptedModel, request: Request
) -> Response | Playback | RawPlayback:
    received_at = time.monotonic()
    body = await _read(request)
    record = model.open_record(received_at)
    if isinstance(body, Refusal):
        return _refuse(record, body)
    record.identify(body)
    if refusal := find_refusal(body) or model.counting.refusal(body):
        return _refuse(record, refusal)
    return model.answer(body, record)


async def _count_tokens(model: ScriptedModel, request: Request) -> Response:
    body = await _read(request)
    if isinstance(body, Refusal):
        return _error(body)
    if refusal := find_refusal(body, needs_max_tokens=False):
        return _error(refusal)
    return await model.counting.counted(body, request)


async def _list_models(request: Request) -> Response:
    if refusal := _unauthenticated(request):
        return _error(refusal)
    return _json(
        {
            "data": [_model_info(name) for name in MODEL_NAMES],
            "has_more": False,
            "first_id": MODEL_NAMES[0],
            "last_id": MODEL_NAMES[-1],
        }
    )


def _model_info(name: str) -> JsonObject:
    return {
        "type": "model",
        "id": name,
        "display_name": f"{name} (demo)",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
    }


async def _read(request: Request) -> JsonObject | Refusal:
    """Return the JSON object of the body, or why the request is refused without looking at it."""
    content = await _content(request)
    if refusal := _unauthenticated(request):
        return refusal
    if content is None:
        return Refusal(413, "Request exceeds the maximum size")
    try:
        body = json.loads(content)
    except ValueError as error:
        return Refusal(400, f"The request body is not valid JSON: {error}")
    return body if isinstance(body, dict) else Refusal(400, "The request body is not an object.")


async def _content(request: Request) -> bytes | None:
    """Return the body, or None if it is too long; then it is still read to its end.

    A client that is refused while it writes sees a broken connection and not the refusal.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            chunks.clear()
        else:
            chunks.append(chunk)
    return None if size > MAX_BODY_BYTES else b"".join(chunks)


def _unauthenticated(request: Request) -> Refusal | None:
    if request.headers.get("x-api-key") or request.headers.get("authorization"):
        return None
    return Refusal(401, "x-api-key header is required")


def _refuse(record: RequestRecord, refusal: Refusal) -> Response:
    record.refuse(refusal.status)
    return _error(refusal, record.request_id)


def _error(refusal: Refusal, request_id: str | None = None) -> Response:
    request_id = request_id or new_request_id()
    return _json(refusal.as_json(request_id), status=refusal.status, request_id=request_id)


def _json(payload: JsonObject, *, status: int = 200, request_id: str | None = None) -> Response:
    return Response(
        encode_json(payload),
        status,
        {"request-id": request_id or new_request_id()},
        "application/json",
    )


async def _no_endpoint(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _error(Refusal(status, "No such endpoint."))


async def _client_gone(_: Request, __: Exception) -> Response:
    """Answer a client that left while it was still sending; the server drops the answer."""
    return Response(status_code=400)
