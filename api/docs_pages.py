"""The documentation: the OpenAPI document, and pages whose policy runs only their own scripts."""

import asyncio
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from api.security_headers import STATIC_PATH

_DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "openapi.json"
_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# Both pages create styles and images while they run, and ReDoc searches in a worker.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'{}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_docs_pages(app: FastAPI) -> None:
    """Serve `/docs` and `/redoc`, rendered once: what their policy allows never changes.

    The document behind them is a file in a checkout, which `make check` compares. Where there is
    none, it is built when it is first asked for: a second of CPU, and 14 MB.
    """
    openapi, favicon = str(app.openapi_url), f"{STATIC_PATH}/favicon.png"

    async def document(_: Request) -> Response:
        if _DOCUMENT.is_file():
            return FileResponse(_DOCUMENT)
        return JSONResponse(await asyncio.to_thread(app.openapi))

    # Before FastAPI's own, which builds it in the event loop.
    app.router.routes.insert(0, Route(openapi, document, include_in_schema=False))
    swagger = get_swagger_ui_html(
        openapi_url=openapi,
        title=f"{app.title} - Swagger UI",
        swagger_js_url=f"{STATIC_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{STATIC_PATH}/swagger-ui.css",
        swagger_favicon_url=favicon,
    )
    redoc = get_redoc_html(
        openapi_url=openapi,
        title=f"{app.title} - ReDoc",
        redoc_js_url=f"{STATIC_PATH}/redoc.standalone.js",
        redoc_favicon_url=favicon,
        with_google_fonts=False,
    )
    for path, page in (("/docs", swagger), ("/redoc", redoc)):
        _add_page(app, path, bytes(page.body).decode())


def _add_page(app: FastAPI, path: str, html: str) -> None:
    hashes = (
        b64encode(sha256(script.encode()).digest()).decode() for script in _SCRIPT.findall(html)
    )
    policy = _POLICY.format("".join(f" 'sha256-{value}'" for value in hashes))

    @app.get(path, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})
