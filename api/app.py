"""Owns the application: routes, middleware and documentation put together."""

from typing import Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import Scope

from api.body_limit import BodyLimitMiddleware
from api.document_bodies import body_limit, takes_document
from api.documentation import document_headers
from api.errors import install_error_handlers
from api.group_router import API_PREFIX
from api.head_requests import HeadMiddleware
from api.metrics import ApiMetrics, MetricsMiddleware
from api.rate_limit_answers import RATE_LIMITED_DOCS, RateLimitHeadersMiddleware
from api.rate_limits import limited
from api.request_id import RequestIdMiddleware
from api.routes import (
    api_keys,
    auth,
    chats,
    health,
    knowledge,
    knowledge_search,
    knowledge_versions,
    memories,
    messages,
    metrics,
    subscription,
    tool_callbacks,
    tools,
    turns,
    users,
)
from api.routes.admin import (
    alerts,
    audit,
    mcp_servers,
    plans,
    prompts,
    subscriptions,
    usage,
    workflow_tools,
)
from api.routes.admin import knowledge as admin_knowledge
from api.routes.admin import tools as admin_tools
from api.routes.admin import turns as admin_turns
from api.routes.admin import users as admin_users
from api.service_groups import ApiServices
from services.rate_limits.rules import Group

_DESCRIPTION: Final = """\
Everturn answers chat messages in durable turns: nothing accepted is lost, nothing is answered \
twice, and a stream can be resumed behind any of its events.

Answers come as `{"data": ..., "meta": {"requestId": ...}}`, failures as \
`{"error": {"code", "message", "details", "retryable"}, "meta": ...}`.
"""


_OF_USERS: Final = (
    health,
    auth,
    users,
    api_keys,
    chats,
    messages,
    turns,
    memories,
    knowledge,
    knowledge_search,
    knowledge_versions,
    tools,
    tool_callbacks,
    subscription,
)
_ADMINISTRATION: Final = (
    admin_tools,
    mcp_servers,
    workflow_tools,
    admin_turns,
    admin_users,
    admin_knowledge,
    alerts,
    audit,
    plans,
    subscriptions,
    usage,
    prompts,
)
# Nobody needs to be signed in for these, so each says itself what limits it. All others are limited
# by user, without a word; a route that is more than a request says so: `limited(Group.UPLOADS)`.
_OPEN: Final = (health, auth, tool_callbacks)


def create_app(services: ApiServices, *, max_body_bytes: int) -> FastAPI:
    """Return the application; `services` are opened and closed by whoever calls this."""

    def limit_of(scope: Scope) -> int:
        if takes_document(scope, prefix=API_PREFIX):
            return body_limit(services.knowledge.max_document_bytes)
        return max_body_bytes

    # Its pages need nothing from elsewhere: FastAPI's own load their scripts from the internet.
    app = FastAPIOffline(
        title="Everturn",
        version="1",
        summary="A backend for AI chat in which every turn is a durable workflow.",
        description=_DESCRIPTION,
        redirect_slashes=False,  # an address with a slash too many is none
    )
    app.state.services = services
    app.state.metrics = ApiMetrics()
    # The middleware that is added last is the outermost.
    app.add_middleware(HeadMiddleware)
    app.add_middleware(BodyLimitMiddleware, limit_of=limit_of)
    app.add_middleware(RateLimitHeadersMiddleware)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(MetricsMiddleware, metrics=app.state.metrics)
    install_error_handlers(app)
    app.include_router(metrics.router)
    # Into the application itself: each router between would have all routes compared once more.
    for group in (*_OF_USERS, *_ADMINISTRATION):
        if group in _OPEN:
            app.include_router(group.router)
        else:
            app.include_router(
                group.router,
                dependencies=[limited(Group.REQUESTS)],
                responses=RATE_LIMITED_DOCS,
            )
    document_headers(app)
    return app
