"""The documentation pages, with a policy under which only their own scripts run."""

import re
from base64 import b64encode
from hashlib import sha256
from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse

from api.security_headers import STATIC_PATH

_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# Both pages create styles and images while they run, and ReDoc searches in a worker.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'{}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_docs_pages(app: FastAPI) -> None:
    """Serve `/docs` and `/redoc`, rendered once: what their policy allows never changes."""
    openapi, favicon = str(app.openapi_url), f"{STATIC_PATH}/favicon.png"
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
