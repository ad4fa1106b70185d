"""The services of the API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import httpx2
from temporalio.client import Client

from activities.alerts import delivery_starter
from activities.mail import MailStarter
from api.service_groups import (
    AccountServices,
    ApiServices,
    KnowledgeServices,
    MemoryServices,
    OperationServices,
    SubscriptionServices,
    ToolServices,
    TurnServices,
)
from api.start_pace import StartPace
from api.temporal_gateway import TemporalGateway
from services.alerts import AlertService, OnAlert
from services.audit import AuditService
from services.auth.accounts import AccountCache
from services.auth.callers import Callers
from services.auth.credentials import AccessTokens, ApiKeyReader, Passwords
from services.auth.email_verification import EmailVerification
from services.auth.external_accounts import ExternalAccounts
from services.auth.invalidation import CacheInvalidation
from services.auth.issuers import ExternalIssuers
from services.auth.password_reset import PasswordReset
from services.auth.service import AuthService
from services.auth.sessions import LiveSessions, Sessions
from services.chats import ChatService
from services.conversation_copies import ConversationCopies
from services.erasure import Erasure
from services.events.feed import EventFeed
from services.events.hub import EventHub
from services.events.open_streams import OpenStreams
from services.events.snapshots import Snapshots
from services.events.stops import announce_stop
from services.events.user_feed import UserFeed
from services.feedback import FeedbackService
from services.knowledge.publication import Publication
from services.knowledge.search import KnowledgeSearch
from services.knowledge.service import KnowledgeService
from services.knowledge.versions import DocumentVersions
from services.mail.outbox import Outbox
from services.mcp.service import McpServerService
from services.memories.search import MemorySearch
from services.memories.service import MemoryService
from services.messages import MessageService
from services.prompts.service import PromptService
from services.rate_limits.limiter import RateLimiter, RateLimitService
from services.rate_limits.rules import AuthLimits
from services.settings import Settings
from services.shares import ShareService
from services.subscriptions.budget_alerts import BudgetAlerts
from services.subscriptions.offered_models import OfferedModels
from services.subscriptions.overrides import BudgetOverrides
from services.subscriptions.plans import PlanService
from services.subscriptions.service import SubscriptionService
from services.subscriptions.usage import SubscriptionUsageService, UsageReports
from services.tools.administration import ToolAdministration
from services.tools.service import ToolService
from services.tools.trials import ToolTrials
from services.turns.acceptance import AcceptanceLimits, TurnAcceptance
from services.turns.cancellation import TurnCancellation
from services.turns.inspection import TurnInspection, TurnReading
from services.turns.options import OptionRules
from services.turns.regeneration import TurnRegeneration
from services.users.administration import UserAdministration
from services.users.api_keys import ApiKeyService
from services.users.export import UserExport
from services.users.preferences import PreferencesService
from services.users.service import UserDeletion, UserService
from services.users.sessions import SessionService
from services.workflow_tools.callbacks import ToolCallbacks
from services.workflow_tools.service import WorkflowToolService
from workers.composition.files import make_files
from workers.composition.foundation import Foundation
from workers.composition.tools import (
    make_approvals,
    make_catalogue,
    make_local_tools,
    make_vault,
)


@dataclass(frozen=True, slots=True)
class KnownPeople:
    """A process's caches of accounts, and what invalidates them in all processes."""

    accounts: AccountCache
    sessions: LiveSessions
    api_keys: ApiKeyReader
    invalidation: CacheInvalidation


def make_known_people(foundation: Foundation) -> KnownPeople:
    """Return the empty caches of accounts, sessions and keys."""
    database, lifetime_s = foundation.database, foundation.settings.account_cache_s
    accounts = AccountCache(database, lifetime_s=lifetime_s)
    sessions = LiveSessions(database, lifetime_s=lifetime_s)
    keys = ApiKeyReader(database, lifetime_s=lifetime_s)
    invalidation = CacheInvalidation(
        foundation.redis, accounts=accounts, sessions=sessions, api_keys=keys
    )
    return KnownPeople(accounts, sessions, keys, invalidation)


@asynccontextmanager
async def open_accounts(
    foundation: Foundation, known: KnownPeople, outbox: Outbox
) -> AsyncIterator[AccountServices]:
    """Build the account services.

    Errors: WeakSecretError.
    """
    settings, database = foundation.settings, foundation.database
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else ""
    tokens = AccessTokens(secret, lifetime=timedelta(minutes=settings.access_token_minutes))
    sessions = Sessions(
        tokens, secret=secret, refresh_lifetime=timedelta(days=settings.refresh_token_days)
    )
    passwords, accounts, invalidation = Passwords(), known.accounts, known.invalidation
    password_reset = PasswordReset(database, passwords, invalidation, outbox)
    async with httpx2.AsyncClient() as http:
        issuers = ExternalIssuers(settings.issuers, http)
        outside = ExternalAccounts(database, issuers, lifetime_s=settings.account_cache_s)
        try:
            yield AccountServices(
                callers=Callers(tokens, known.api_keys, outside, accounts, sessions=known.sessions),
                sign_in=AuthService(
                    database,
                    sessions,
                    passwords,
                    invalidation,
                    outbox=outbox,
                    sign_up_open=settings.sign_up,
                ),
                password_reset=password_reset,
                verification=EmailVerification(database, invalidation, outbox),
                sessions=SessionService(database, invalidation),
                require_verified_email=settings.require_verified_email,
                users=UserService(database, passwords, invalidation, outbox),
                preferences=PreferencesService(
                    database, accounts, invalidation, models=settings.models
                ),
                api_keys=ApiKeyService(database, invalidation),
                exports=UserExport(database),
                deletion=UserDeletion(database, passwords, invalidation),
                administration=UserAdministration(database, invalidation),
            )
        finally:
            await password_reset.close()
            await issuers.close()


@asynccontextmanager
async def open_api_services(
    foundation: Foundation, client: Client, *, eager: bool
) -> AsyncIterator[ApiServices]:
    """Build what the routes call.

    Errors: WeakSecretError.
    """
    settings, database = foundation.settings, foundation.database
    known = make_known_people(foundation)
    outbox = Outbox(MailStarter(client) if settings.sends_mail else None)
    async with (
        EventHub(foundation.redis, known.invalidation) as hub,
        OpenStreams(foundation.redis, process_channel=hub.process_channel) as open_streams,
        open_accounts(foundation, known, outbox) as accounts,
    ):
        temporal = TemporalGateway(
            client,
            eager=eager,
            pace=StartPace(per_second=settings.user_turns_per_second),
            public_url=settings.public_url,
            on_cancel=partial(announce_stop, foundation.redis),
        )
        temporal.find_problem_in_background()
        yield ApiServices(
            accounts=accounts,
            subscriptions=SubscriptionServices(
                plans=PlanService(database, known.invalidation, models=settings.models),
                assignments=SubscriptionService(database, known.invalidation),
                overrides=BudgetOverrides(database),
                models=OfferedModels(
                    known.accounts,
                    foundation.pricing,
                    foundation.windows,
                    models=settings.models,
                    default_model=settings.default_model,
                    max_output_tokens=settings.max_output_tokens,
                ),
                usage=SubscriptionUsageService(database, foundation.pricing),
                reports=UsageReports(database),
            ),
            chats=ChatService(database),
            messages=MessageService(database),
            copies=ConversationCopies(database, model=settings.default_model),
            shares=ShareService(database, public_url=settings.public_url, is_on=settings.sharing),
            feedback=FeedbackService(database),
            files=make_files(foundation, known.accounts),
            turns=_turns(
                foundation, known, hub, open_streams, on_alert=delivery_starter(settings, client)
            ),
            memories=MemoryServices(
                store=MemoryService(database, foundation.embedder, known.accounts),
                search=MemorySearch(database, foundation.embedder),
            ),
            knowledge=KnowledgeServices(
                documents=KnowledgeService(database, known.accounts),
                versions=DocumentVersions(database),
                publication=Publication(database),
                search=KnowledgeSearch(database, foundation.embedder),
                max_document_bytes=settings.max_document_bytes,
            ),
            tools=_tools(foundation, known),
            prompts=PromptService(database, max_tokens=settings.prompt_tokens // 2),
            operations=OperationServices(
                database=database,
                redis=foundation.redis,
                rate_limits=_rate_limits(foundation),
                audit=AuditService(database),
                alerts=AlertService(database),
            ),
            temporal=temporal,
        )


def _turns(
    foundation: Foundation,
    known: KnownPeople,
    hub: EventHub,
    open_streams: OpenStreams,
    *,
    on_alert: OnAlert,
) -> TurnServices:
    settings, database = foundation.settings, foundation.database
    budgets = BudgetAlerts(database, on_alert)
    catalogue = make_catalogue(foundation, make_local_tools(foundation, known.accounts))
    options = OptionRules(catalogue, longest=settings.max_output_tokens)
    return TurnServices(
        acceptance=TurnAcceptance(
            database, _limits(settings), known.accounts, budgets, options=options
        ),
        reading=TurnReading(database),
        cancellation=TurnCancellation(database, foundation.events),
        regeneration=TurnRegeneration(
            database, known.accounts, budgets, options=options, models=settings.models
        ),
        approvals=make_approvals(foundation),
        inspection=TurnInspection(database),
        ending=foundation.ending,
        erasure=Erasure(database, foundation.events.erase),
        events=foundation.events,
        feed=EventFeed(hub, Snapshots(database), keep_alive_s=settings.keep_alive_s),
        user_feed=UserFeed(hub, database, keep_alive_s=settings.keep_alive_s),
        open_streams=open_streams if settings.rate_limits else None,
        answer_wait_s=settings.answer_wait_s,
    )


def _tools(foundation: Foundation, known: KnownPeople) -> ToolServices:
    database = foundation.database
    tools = make_local_tools(foundation, known.accounts)
    catalogue, vault = make_catalogue(foundation, tools), make_vault(foundation.settings)
    return ToolServices(
        available=ToolService(catalogue, known.accounts),
        administration=ToolAdministration(database, tools),
        trials=ToolTrials(database, catalogue),
        mcp_servers=McpServerService(database, vault),
        workflow_tools=WorkflowToolService(database, tools, vault),
        callbacks=ToolCallbacks(database, vault, foundation.events),
    )


def _rate_limits(foundation: Foundation) -> RateLimitService:
    settings = foundation.settings
    return RateLimitService(
        RateLimiter(foundation.redis) if settings.rate_limits else None,
        AuthLimits(
            requests_per_minute=settings.auth_requests_per_minute,
            wrong_credentials_per_minute=settings.wrong_credentials_per_minute,
            logins_per_hour=settings.logins_per_hour,
            shared_reads_per_minute=settings.shared_reads_per_minute,
            mails_per_hour=settings.mails_per_hour,
        ),
    )


def _limits(settings: Settings) -> AcceptanceLimits:
    return AcceptanceLimits(
        max_content_chars=settings.max_content_chars,
        max_queued_turns=settings.max_queued_turns,
        models=settings.models,
        default_model=settings.default_model,
        text_only_models=settings.text_only_models or (),
    )
