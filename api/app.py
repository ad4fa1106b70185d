"""Owns the application: routes, middleware and documentation put together."""

from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from api.body_limit import DeclaredBodyLimitMiddleware
from api.dependencies import ApiServices
from api.errors import install_error_handlers
from api.request_id import RequestIdMiddleware
from api.routes import auth, chats, health, messages, turns

API_PREFIX: Final = "/api/v1"

_DESCRIPTION: Final = """\
Everturn answers chat messages in durable turns: nothing accepted is lost, nothing is answered \
twice, and a stream can be resumed behind any of its events.

Answers come as `{"data": ..., "meta": {"requestId": ...}}`, failures as \
`{"error": {"code", "message", "details", "retryable"}, "meta": ...}`.
"""


def create_app(services: ApiServices, *, max_body_bytes: int) -> FastAPI:
    """Return the application; `services` are opened and closed by whoever calls this."""
    app = FastAPI(
        title="Everturn",
        version="1",
        summary="A backend for AI chat in which every turn is a durable workflow.",
        description=_DESCRIPTION,
        redirect_slashes=False,  # an address with a slash too many is none
    )
    app.state.services = services
    # The middleware that is added last is the outermost.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=max_body_bytes)
    app.add_middleware(DeclaredBodyLimitMiddleware, max_body_size=max_body_bytes)
    app.add_middleware(RequestIdMiddleware)
    install_error_handlers(app)
    router = APIRouter(prefix=API_PREFIX)
    for group in (health, auth, chats, messages, turns):
        router.include_router(group.router)
    app.include_router(router)
    return app
