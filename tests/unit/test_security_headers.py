"""Security headers: what every response has, and what the documentation may run."""

import re
from base64 import b64encode
from hashlib import sha256

import httpx
import pytest
from fastapi import FastAPI, Response

from api.docs_pages import add_docs_pages
from api.security_headers import SECURITY_HEADERS, STATIC_PATH, SecurityHeadersMiddleware

PUBLIC_FILE = f"{STATIC_PATH}/app.js"


def application() -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.add_middleware(SecurityHeadersMiddleware)
    add_docs_pages(app)

    @app.get("/data")
    async def data() -> dict[str, str]:
        return {}

    @app.get("/own")
    async def own() -> Response:
        return Response(headers={"Cache-Control": "no-store, no-transform"})

    @app.get(PUBLIC_FILE)
    async def file() -> Response:
        return Response("1")

    return app


async def get(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(application())
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(path)


@pytest.mark.parametrize("path", ["/data", "/nowhere"])
async def test_responses_are_neither_stored_nor_framed_nor_guessed_at(path: str) -> None:
    response = await get(path)

    assert {name: response.headers[name] for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)


async def test_a_routes_own_header_stands() -> None:
    response = await get("/own")

    assert response.headers.get_list("cache-control") == ["no-store, no-transform"]


async def test_static_files_may_be_stored() -> None:
    response = await get(PUBLIC_FILE)

    assert "cache-control" not in response.headers
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("path", "scripts"), [("/docs", 1), ("/redoc", 0)])
async def test_the_documentation_runs_its_own_scripts_alone(path: str, scripts: int) -> None:
    response = await get(path)

    (policy,) = response.headers.get_list("content-security-policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    inline = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    hashes = [f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in inline]
    assert len(hashes) == scripts
    assert directives["script-src"].split() == ["'self'", *hashes]
    assert directives["default-src"] == directives["frame-ancestors"] == "'none'"
    # No handler in an attribute, and nothing from elsewhere.
    assert re.findall(r"\son\w+=", response.text) == []
    assert re.findall(r'(?:src|href)="(?!/)', response.text) == []
