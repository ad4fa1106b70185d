"""Owns putting the API together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.client import Client

from api.approval_teller import ApprovalTeller
from api.callback_completer import CallbackCompleter
from api.dependencies import ApiServices
from api.ingestion_starter import IngestionStarter
from api.server_refresher import ServerRefresher
from api.tool_tester import ToolTester
from api.turn_starter import TurnStarter
from services.alerts.service import AlertService
from services.audit.service import AuditService
from services.chats.service import ChatService
from services.erasure import Erasure
from services.events.feed import EventFeed
from services.events.hub import EventHub
from services.events.snapshots import Snapshots
from services.knowledge.publication import Publication
from services.knowledge.search import KnowledgeSearch
from services.knowledge.service import KnowledgeService
from services.knowledge.versions import DocumentVersions
from services.mcp.service import McpServerService
from services.memories.search import MemorySearch
from services.memories.service import MemoryService
from services.prompts.service import PromptService
from services.rate_limits.limiter import RateLimiter
from services.rate_limits.rules import AuthLimits
from services.rate_limits.service import RateLimitService
from services.settings import Settings
from services.subscriptions.plans import PlanService
from services.subscriptions.service import SubscriptionService
from services.subscriptions.usage import SubscriptionUsageService
from services.subscriptions.usage_reports import UsageReports
from services.tools.administration import ToolAdministration
from services.tools.service import ToolService
from services.tools.trials import ToolTrials
from services.turns.acceptance import AcceptanceLimits, TurnAcceptance
from services.turns.cancellation import TurnCancellation
from services.turns.inspection import TurnInspection
from services.turns.reading import TurnReading
from services.turns.regeneration import TurnRegeneration
from services.workflow_tools.callbacks import ToolCallbacks
from services.workflow_tools.service import WorkflowToolService
from workers.composition.accounts import make_known_people, open_accounts
from workers.composition.foundation import Foundation
from workers.composition.local_tools import make_local_tools
from workers.composition.tools import (
    make_approvals,
    make_catalogue,
    make_vault,
)


@asynccontextmanager
async def open_api_services(
    foundation: Foundation, client: Client, *, eager: bool
) -> AsyncIterator[ApiServices]:
    """Make what the routes call.

    Errors: WeakSecretError.
    """
    settings, database = foundation.settings, foundation.database
    known = make_known_people(foundation)
    accounts, invalidation = known.accounts, known.invalidation
    tools = make_local_tools(foundation, accounts)
    catalogue, vault = make_catalogue(foundation, tools), make_vault(settings)
    async with (
        EventHub(foundation.redis, invalidation) as hub,
        open_accounts(foundation, known) as people,
    ):
        yield ApiServices(
            database=database,
            redis=foundation.redis,
            callers=people.callers,
            plans=PlanService(database, invalidation, models=settings.models),
            subscriptions=SubscriptionService(database, invalidation),
            subscription_usage=SubscriptionUsageService(database),
            usage_reports=UsageReports(database),
            prompts=PromptService(database, max_tokens=settings.prompt_tokens // 2),
            audit=AuditService(database),
            alerts=AlertService(database),
            auth=people.auth,
            users=people.users,
            preferences=people.preferences,
            api_keys=people.api_keys,
            user_exports=people.exports,
            user_deletion=people.deletion,
            user_administration=people.administration,
            chats=ChatService(database),
            turns=TurnReading(database),
            acceptance=TurnAcceptance(database, _limits(settings), accounts),
            cancellation=TurnCancellation(database),
            inspection=TurnInspection(database),
            regeneration=TurnRegeneration(database, accounts, models=settings.models),
            ending=foundation.ending,
            erasure=Erasure(database, foundation.events.erase),
            feed=EventFeed(hub, Snapshots(database), keep_alive_s=settings.keep_alive_s),
            memories=MemoryService(database, foundation.embedder, accounts),
            memory_search=MemorySearch(database, foundation.embedder),
            knowledge=KnowledgeService(database, accounts),
            knowledge_search=KnowledgeSearch(database, foundation.embedder),
            document_versions=DocumentVersions(database),
            publication=Publication(database),
            tools=ToolService(catalogue, accounts),
            tool_administration=ToolAdministration(database, tools),
            tool_trials=ToolTrials(database, catalogue),
            tool_tester=ToolTester(client),
            approvals=make_approvals(foundation),
            approval_teller=ApprovalTeller(client),
            mcp_servers=McpServerService(database, vault),
            workflow_tools=WorkflowToolService(database, tools, vault),
            tool_callbacks=ToolCallbacks(database, vault, foundation.events),
            callback_completer=CallbackCompleter(client),
            server_refresher=ServerRefresher(client),
            starter=TurnStarter(client, eager=eager),
            ingestions=IngestionStarter(client),
            rate_limits=_rate_limits(foundation),
            answer_wait_s=settings.answer_wait_s,
            max_document_bytes=settings.max_document_bytes,
        )


def _rate_limits(foundation: Foundation) -> RateLimitService:
    settings = foundation.settings
    return RateLimitService(
        RateLimiter(foundation.redis) if settings.rate_limits else None,
        AuthLimits(
            requests_per_minute=settings.auth_requests_per_minute,
            wrong_credentials_per_minute=settings.wrong_credentials_per_minute,
            logins_per_hour=settings.logins_per_hour,
        ),
    )


def _limits(settings: Settings) -> AcceptanceLimits:
    return AcceptanceLimits(
        max_content_chars=settings.max_content_chars,
        max_queued_turns=settings.max_queued_turns,
        models=settings.models,
        default_model=settings.default_model,
    )
