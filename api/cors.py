"""Cross-origin requests: which pages in browsers may call the API, and read what of its responses.

Outside of the application, so that every response has the headers, those of failures included.
"""

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

READABLE: Final = (
    *("ETag", "Location", "Retry-After", "X-Request-Id", "X-Turn-Id"),
    *("Allow", "Content-Disposition", "WWW-Authenticate"),
    *("RateLimit-Limit", "RateLimit-Policy", "RateLimit-Remaining", "RateLimit-Reset"),
)
"""The headers of responses that pages of other origins can read, beside those that all can."""

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PREFLIGHT_AGE_S: Final = 7200
"""The longest that browsers keep an answer."""


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return the application for pages of these origins, too; `*` is any.

    Without credentials of the browser's own: callers send their token as a header.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=["*"],
        expose_headers=READABLE,
        max_age=_PREFLIGHT_AGE_S,
    )
