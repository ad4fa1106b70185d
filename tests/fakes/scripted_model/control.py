"""The endpoints under `/demo`, by which a test in another process controls the model."""

from functools import partial

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.raw_answers import RawAnswer
from tests.fakes.scripted_model.request_log import new_request_id
from tests.fakes.scripted_model.scripts import Script
from workers.demo_model.wire import Refusal

_SCRIPTS = TypeAdapter[list[Script] | Script](list[Script] | Script)


class RequestsQuery(BaseModel):
    """Which requests to list, and how many of them to wait for."""

    match: str = ""
    ended: bool = False
    wait_for: int = Field(0, ge=0)
    timeout_s: float = Field(10.0, gt=0)


def control_routes(model: ScriptedModel) -> list[Route]:
    """Return the routes by which this model is scripted, watched and released."""
    return [
        Route("/demo/scripts", partial(_add_scripts, model), methods=["POST"]),
        Route("/demo/scripts", partial(_clear_scripts, model), methods=["DELETE"]),
        Route("/demo/raw-answers", partial(_add_raw, model), methods=["POST"]),
        Route("/demo/requests", partial(_list_requests, model), methods=["GET"]),
        Route("/demo/release/{name}", partial(_release, model), methods=["POST"]),
    ]


async def _add_scripts(model: ScriptedModel, request: Request) -> Response:
    """Queue the script, or the list of scripts, in the body."""
    try:
        parsed = _SCRIPTS.validate_json(await request.body())
    except ValidationError as error:
        return _error(Refusal(400, str(error)))
    for script in parsed if isinstance(parsed, list) else [parsed]:
        model.add(script)
    return JSONResponse({"unused_scripts": model.unused_scripts}, 201)


async def _add_raw(model: ScriptedModel, request: Request) -> Response:
    """Queue the raw answer in the body."""
    try:
        model.add_raw(RawAnswer.model_validate_json(await request.body()))
    except ValidationError as error:
        return _error(Refusal(400, str(error)))
    return Response(status_code=201)


async def _clear_scripts(model: ScriptedModel, _: Request) -> Response:
    model.clear_scripts()
    return Response(status_code=204)


async def _list_requests(model: ScriptedModel, request: Request) -> Response:
    """List requests, once there are as many as `wait_for` asks for."""
    try:
        query = RequestsQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        return _error(Refusal(400, str(error)))
    try:
        await _wait(model, query)
    except TimeoutError:
        return _error(Refusal(408, f"Fewer than {query.wait_for} requests within the time."))
    records = model.requests_matching(query.match, ended=query.ended)
    return JSONResponse({"requests": [record.as_json() for record in records]})


async def _wait(model: ScriptedModel, query: RequestsQuery) -> None:
    if query.wait_for:
        await model.wait_for_request(
            query.wait_for, query.timeout_s, match=query.match, ended=query.ended
        )


async def _release(model: ScriptedModel, request: Request) -> Response:
    model.release(request.path_params["name"])
    return Response(status_code=204)


def _error(refusal: Refusal) -> Response:
    return JSONResponse(refusal.as_json(new_request_id()), refusal.status)
