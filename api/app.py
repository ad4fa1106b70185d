"""The application: routes, middleware and documentation put together."""

from typing import Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import Scope

from api.access import RATE_LIMITED_DOCS, RateLimitHeadersMiddleware, limited
from api.docs_pages import add_docs_pages
from api.document_bodies import body_limit, takes_document
from api.errors import install_error_handlers
from api.file_bodies import takes_file
from api.metrics import ApiMetrics, MetricsMiddleware
from api.middleware import BodyLimitMiddleware, HeadMiddleware, RequestIdMiddleware
from api.openapi import complete_document
from api.parameters import KNOWN_PARAMETERS_ONLY
from api.request_log import RequestLogMiddleware
from api.routes import (
    auth,
    chats,
    files,
    health,
    knowledge,
    memories,
    messages,
    models,
    root,
    shared,
    shares,
    subscription,
    tool_callbacks,
    tools,
    turns,
    users,
)
from api.routes.admin import budgets, plans, prompts, records, tool_sources
from api.routes.admin import knowledge as admin_knowledge
from api.routes.admin import tools as admin_tools
from api.routes.admin import turns as admin_turns
from api.routes.admin import users as admin_users
from api.routing import API_PREFIX, operation_id
from api.security_headers import STATIC_PATH, SecurityHeadersMiddleware
from api.service_groups import ApiServices
from services.rate_limits.rules import Group

_DESCRIPTION: Final = """\
Everturn answers chat messages in durable turns: an accepted message is never lost and never \
answered twice, and an event stream can be resumed after any of its events.

Responses have the form `{"data": ..., "meta": {"requestId": ...}}`, errors \
`{"error": {"code", "message", "details", "retryable"}, "meta": ...}`.

Whatever the endpoint, a URL that is too long gets 414, headers that are too large 431, and a \
request that is too slow 408; the connection is then closed.
"""


# Public routes: each sets its own limit. All others are limited for each user; expensive routes
# have their own, e.g. `limited(Group.UPLOADS)`.
_PUBLIC: Final = (health, auth, shared, tool_callbacks)
_SIGNED_IN: Final = (
    users,
    chats,
    messages,
    shares,
    models,
    files,
    turns,
    memories,
    knowledge,
    tools,
    subscription,
    admin_tools,
    tool_sources,
    admin_turns,
    admin_users,
    admin_knowledge,
    records,
    budgets,
    plans,
    prompts,
)


def create_app(
    services: ApiServices, *, max_body_bytes: int, temporal_ui_url: str | None = None
) -> FastAPI:
    """Return the application. The caller opens and closes `services`."""

    def limit_of(scope: Scope) -> int:
        if takes_document(scope, prefix=API_PREFIX):
            return body_limit(services.knowledge.max_document_bytes)
        if takes_file(scope, prefix=API_PREFIX):
            return body_limit(services.files.max_bytes)
        return max_body_bytes

    # Serves the scripts of the documentation: FastAPI's pages load theirs from the internet.
    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        static_url=STATIC_PATH,
        title="Everturn",
        version="1",
        summary="A backend for AI chat in which every turn is a durable workflow.",
        description=_DESCRIPTION,
        redirect_slashes=False,  # a path with a trailing slash is a different path
        generate_unique_id_function=operation_id,
    )
    app.state.services = services
    app.state.temporal_ui_url = temporal_ui_url
    app.state.is_stopping = False
    app.state.metrics = ApiMetrics(
        is_limiter_degraded=lambda: services.operations.rate_limits.is_degraded
    )
    # The middleware that is added last is the outermost.
    app.add_middleware(HeadMiddleware)
    app.add_middleware(BodyLimitMiddleware, limit_of=limit_of)
    app.add_middleware(RateLimitHeadersMiddleware)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(MetricsMiddleware, metrics=app.state.metrics)
    app.add_middleware(RequestLogMiddleware)
    install_error_handlers(app)
    add_docs_pages(app)
    app.include_router(root.router)
    # Directly into the application: a router in between would compare all routes once more.
    for group in _PUBLIC:
        app.include_router(group.router, dependencies=[KNOWN_PARAMETERS_ONLY])
    for group in _SIGNED_IN:
        app.include_router(
            group.router,
            dependencies=[limited(Group.REQUESTS), KNOWN_PARAMETERS_ONLY],
            responses=RATE_LIMITED_DOCS,
        )
    complete_document(app)
    return app
