"""Owns what routes are given: the services, the actor, the page that is asked for."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis

from api.approval_teller import ApprovalTeller
from api.callback_completer import CallbackCompleter
from api.errors import ApiError
from api.ingestion_starter import IngestionStarter
from api.rate_limit_answers import tell
from api.server_refresher import ServerRefresher
from api.tool_tester import ToolTester
from api.turn_starter import TurnStarter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.pages import PageRequest
from schema.permissions import Permission
from services.alerts.service import AlertService
from services.audit.service import AuditService
from services.auth.callers import Caller, Callers
from services.auth.service import AuthService
from services.chats.service import ChatService
from services.database import Database, DatabaseUnavailableError
from services.erasure import Erasure
from services.events.feed import EventFeed
from services.knowledge.publication import Publication
from services.knowledge.search import KnowledgeSearch
from services.knowledge.service import KnowledgeService
from services.knowledge.versions import DocumentVersions
from services.mcp.service import McpServerService
from services.memories.search import MemorySearch
from services.memories.service import MemoryService
from services.prompts.service import PromptService
from services.rate_limits.service import RateLimitService
from services.subscriptions.plans import PlanService
from services.subscriptions.service import SubscriptionService
from services.subscriptions.usage import SubscriptionUsageService
from services.subscriptions.usage_reports import UsageReports
from services.tools.administration import ToolAdministration
from services.tools.service import ToolService
from services.tools.trials import ToolTrials
from services.turns.acceptance import TurnAcceptance
from services.turns.approvals import ToolApprovals
from services.turns.cancellation import TurnCancellation
from services.turns.ending import TurnEnding
from services.turns.inspection import TurnInspection
from services.turns.reading import TurnReading
from services.turns.regeneration import TurnRegeneration
from services.users.administration import UserAdministration
from services.users.api_keys import ApiKeyService
from services.users.deletion import UserDeletion
from services.users.export import UserExport
from services.users.preferences import PreferencesService
from services.users.service import UserService
from services.workflow_tools.callbacks import ToolCallbacks
from services.workflow_tools.service import WorkflowToolService


@dataclass(frozen=True, slots=True)
class ApiServices:
    """Everything that routes call, made once by the composition root."""

    database: Database
    redis: Redis
    callers: Callers
    plans: PlanService
    subscriptions: SubscriptionService
    subscription_usage: SubscriptionUsageService
    usage_reports: UsageReports
    prompts: PromptService
    audit: AuditService
    alerts: AlertService
    auth: AuthService
    users: UserService
    preferences: PreferencesService
    api_keys: ApiKeyService
    user_exports: UserExport
    user_deletion: UserDeletion
    user_administration: UserAdministration
    chats: ChatService
    turns: TurnReading
    acceptance: TurnAcceptance
    cancellation: TurnCancellation
    regeneration: TurnRegeneration
    inspection: TurnInspection
    ending: TurnEnding
    erasure: Erasure
    feed: EventFeed
    memories: MemoryService
    memory_search: MemorySearch
    knowledge: KnowledgeService
    knowledge_search: KnowledgeSearch
    document_versions: DocumentVersions
    publication: Publication
    tools: ToolService
    tool_administration: ToolAdministration
    tool_trials: ToolTrials
    tool_tester: ToolTester
    approvals: ToolApprovals
    approval_teller: ApprovalTeller
    mcp_servers: McpServerService
    workflow_tools: WorkflowToolService
    tool_callbacks: ToolCallbacks
    callback_completer: CallbackCompleter
    server_refresher: ServerRefresher
    starter: TurnStarter
    ingestions: IngestionStarter
    rate_limits: RateLimitService
    answer_wait_s: float
    max_document_bytes: int


def services_of(request: Request) -> ApiServices:
    """Return the services of the application that a request came to.

    Dependencies of every route ask here: FastAPI solves a dependency of theirs once for each.
    """
    services: ApiServices = request.app.state.services
    return services


# Async although nothing waits: FastAPI hands plain functions to a thread.
async def _services(request: Request) -> ApiServices:
    return services_of(request)


Services = Annotated[ApiServices, Depends(_services)]

_bearer = HTTPBearer(
    auto_error=False,
    description="An access token from `/auth/login`, an API key, or a token of an outside issuer.",
)


def client_host(request: Request) -> str | None:
    """Return the address that a request comes from, as far as it is known."""
    return None if request.client is None else request.client.host


async def _current_caller(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Caller:
    if credentials is None:
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    services = services_of(request)
    caller = await services.callers.of(credentials.credentials)
    if caller is None:
        # What is valid is let through whatever others at its address do.
        tell(request, await services.rate_limits.wrong_credential(client_host(request)))
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    request.state.caller = caller
    return caller


async def is_still_in(request: Request) -> bool:
    """Say whether who made a request may still be answered; while nobody can tell, they may."""
    try:
        return await services_of(request).callers.are_in(request.state.caller)
    except DatabaseUnavailableError:
        return True


CurrentCaller = Annotated[Caller, Depends(_current_caller)]


def may(permission: Permission) -> Any:  # noqa: ANN401 -- as FastAPI's own Depends
    """Return the dependency that gives the actor of a route, if the caller has the permission.

    A route has no other way to an actor, so none can forget to ask.
    """

    async def actor(caller: CurrentCaller) -> Actor:
        if permission not in caller.permissions:
            raise ApiError(ErrorCode.FORBIDDEN, f"This needs the permission `{permission}`.")
        return caller.acting(permission)

    return Depends(actor)


async def _page(
    limit: Annotated[int, Query(ge=1, le=100, description="How many rows at most.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=2000, description="`meta.nextCursor` of the page before.")
    ] = None,
) -> PageRequest:
    return PageRequest(limit, cursor)


WantedPage = Annotated[PageRequest, Depends(_page)]
