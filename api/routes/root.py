"""The root: what this server is, for people and programs."""

from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from api.envelope import Envelope, envelope
from api.openapi import error_docs
from api.parameters import KNOWN_PARAMETERS_ONLY
from api.routing import API_PREFIX
from schema.wire import WireModel

router = APIRouter(tags=["health"], dependencies=[KNOWN_PARAMETERS_ONLY])


class ServerInfo(WireModel):
    """Links to the parts of this server; `temporalUi` is null where it isn't configured."""

    name: str = "Everturn"
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    health: str = f"{API_PREFIX}/health/ready"
    temporal_ui: str | None = None


_LABELS: Final = {
    "docs": "API documentation",
    "openapi": "OpenAPI document",
    "health": "Health",
    "temporal_ui": "Temporal UI",
}
_PAGE: Final = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Everturn</title>
<h1>Everturn</h1>
<p>A backend for AI chat in which every turn is a durable workflow.</p>
<ul>
{}
</ul>
</html>
"""


@router.get(
    "/",
    name="root.get",
    summary="Get links to this server's parts",
    response_class=Response,
    responses={
        200: {
            "model": Envelope[ServerInfo],
            "description": "The links; as HTML for browsers.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
        **error_docs(),
    },
)
async def get_root(request: Request) -> Response:
    """Return links to the documentation, the health check and the Temporal UI."""
    info = ServerInfo(temporal_ui=request.app.state.temporal_ui_url)
    if "text/html" not in request.headers.get("accept", ""):
        body: dict[str, Any] = envelope(request, info).model_dump(mode="json", by_alias=True)
        return JSONResponse(body)
    links = (
        f'<li><a href="{escape(address)}">{_LABELS[name]}</a></li>'
        for name, address in info.model_dump(include=set(_LABELS)).items()
        if address is not None
    )
    return HTMLResponse(_PAGE.format("\n".join(links)))
