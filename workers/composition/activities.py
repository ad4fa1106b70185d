"""The activity classes, with the preparation of turns."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from ssl import SSLContext
from typing import Final

from temporalio.client import Client

from activities.after_turn import AfterTurnActivities
from activities.alerts import AlertActivities, delivery_starter
from activities.heartbeats import TurnHeartbeats
from activities.knowledge import IngestionActivities, ReembeddingActivities
from activities.mail import MailActivities
from activities.mcp import McpActivities
from activities.sweep import SweepActivities
from activities.tool_callbacks import CallbackActivities
from activities.tools import ToolActivities, ToolTrialActivities
from activities.turns import TurnActivities
from activities.user_shares import UserShares
from services.alerts import DefectAlerts, OnAlert
from services.alerts.delivery import AlertDelivery, AlertWebhook
from services.auth.accounts import AccountCache
from services.compaction import Compaction
from services.contexts.search import ContextSearch
from services.contexts.service import ContextService, PromptBudgets
from services.due_works import DueWorks
from services.erasure import Erasure
from services.events.stops import StopListener
from services.files.service import FileService
from services.files.tool_images import ToolImages
from services.knowledge.extraction.documents import ExtractionLimits
from services.knowledge.extraction.extractor import Extractor
from services.knowledge.ingestion import Ingestion, StrandedIngestionSearch
from services.knowledge.search import KnowledgeSearch
from services.mail.sending import Letterhead, MailSending
from services.mail.transports import LogTransport, SmtpTransport, Transport
from services.memories.search import MemorySearch
from services.memories.suggestions import MemorySuggestions
from services.memory_extraction.extractor import MemoryExtractor
from services.memory_extraction.service import MemoryExtraction
from services.models.gateway import ModelGateway
from services.models.token_counts import TokenCounts
from services.outgoing.client import OutgoingClient
from services.outgoing.signatures import signing_key
from services.prompts.base_prompts import BasePrompts
from services.reembedding import Reembedding
from services.settings import Settings
from services.setup_errors import MissingApiKeyError
from services.subscriptions.budget_alerts import BudgetAlerts
from services.titles import ChatTitles
from services.tools.catalogue import ToolCatalogue
from services.tools.definition import LocalTool
from services.tools.ledger import ToolLedger
from services.tools.refusals import RefusedTools
from services.tools.trials import ToolTrialRuns
from services.turns.call_settings import RefusedOptions
from services.turns.model_calls import ModelCalls
from services.turns.model_requests import PromptCutting
from services.turns.preparation import TurnPreparation, TurnRules
from services.turns.steps import Steps
from services.turns.stranded import StrandedTurnSearch
from services.turns.structured_answers import AnswerChecks
from services.turns.tool_attempts import ToolAttempts
from services.turns.tool_calls import ToolCalls
from services.workflow_tools.callbacks import CallbackDelivery
from workers.composition.files import make_files
from workers.composition.foundation import Foundation
from workers.composition.tools import WorkerTools, make_approvals, open_worker_tools

_DEVELOPER: Final = "Everturn <everturn@localhost>"
"""Whom mails in the log are from."""


def make_preparation(foundation: Foundation, tools: ToolCatalogue) -> TurnPreparation:
    """Return what makes turns ready to run."""
    settings, database = foundation.settings, foundation.database
    search = ContextSearch(
        foundation.embedder,
        memories=MemorySearch(database, foundation.embedder),
        knowledge=KnowledgeSearch(database, foundation.embedder),
        timeout=timedelta(seconds=settings.context_wait_s),
    )
    budgets = PromptBudgets(
        prompt=settings.prompt_tokens,
        user=settings.user_tokens,
        context=settings.context_tokens,
        results=settings.result_tokens,
    )
    contexts = ContextService(
        BasePrompts(database), tools, search, budgets, windows=foundation.windows
    )
    rules = TurnRules(max_steps=settings.max_steps, fallback_model=settings.fallback_model)
    return TurnPreparation(database, foundation.events, contexts, rules)


@dataclass(frozen=True, slots=True)
class Activities:
    """The activity classes, ready to be registered."""

    turns: TurnActivities
    tools: ToolActivities
    trials: ToolTrialActivities
    callbacks: CallbackActivities
    sweep: SweepActivities
    mcp: McpActivities
    ingestion: IngestionActivities
    reembedding: ReembeddingActivities
    after_turn: AfterTurnActivities
    alerts: AlertActivities
    mail: MailActivities
    defects: DefectAlerts


@asynccontextmanager
async def open_activities(
    foundation: Foundation, client: Client, *, more_tools: Sequence[LocalTool] = ()
) -> AsyncIterator[Activities]:
    """Create the activity classes; `more_tools` are added to the built-in tools.

    Errors: MissingApiKeyError; WeakEncryptionKeyError.
    """
    settings = foundation.settings
    if settings.anthropic_api_key is None:
        raise MissingApiKeyError
    gateway = ModelGateway(
        api_key=settings.anthropic_api_key.get_secret_value(),
        base_url=settings.anthropic_base_url,
        idle_timeout_s=settings.model_idle_timeout_s,
        answer_timeout_s=settings.model_answer_timeout_s,
        connections=settings.max_concurrent_model_calls,
    )
    try:
        on_alert = delivery_starter(settings, client)
        async with (
            StopListener(foundation.redis) as stops,
            open_worker_tools(foundation, gateway, more_tools, on_alert) as tools,
        ):
            heartbeats = TurnHeartbeats(stops)
            yield _activities(
                foundation, client, gateway, tools, heartbeats=heartbeats, on_alert=on_alert
            )
    finally:
        await gateway.close()


def _activities(
    foundation: Foundation,
    client: Client,
    gateway: ModelGateway,
    tools: WorkerTools,
    *,
    heartbeats: TurnHeartbeats,
    on_alert: OnAlert,
) -> Activities:
    settings, database = foundation.settings, foundation.database
    preparation = make_preparation(foundation, tools.catalogue)
    webhook = _alert_webhook(settings, tools.outgoing)
    budgets = BudgetAlerts(database, on_alert)
    files = make_files(foundation, AccountCache(database, lifetime_s=settings.account_cache_s))
    model_calls = ModelCalls(
        preparation=preparation,
        ending=foundation.ending,
        steps=Steps(
            database,
            foundation.pricing,
            foundation.windows,
            budget_tokens=settings.prompt_tokens,
        ),
        gateway=gateway,
        events=foundation.events,
        tools=tools.executor,
        refused=RefusedTools(database, on_alert),
        refused_options=RefusedOptions(),
        checks=AnswerChecks(),
        cutting=PromptCutting(foundation.windows, TokenCounts(gateway), files),
        budgets=budgets,
        max_output_tokens=settings.max_output_tokens,
        attempts=settings.model_attempts,
        max_tool_calls=settings.max_tool_calls,
        delta_interval_s=settings.delta_interval_ms / 1000,
    )
    callbacks = CallbackDelivery(database)
    defects = DefectAlerts(database, on_alert)
    return Activities(
        turns=TurnActivities(
            preparation,
            model_calls,
            foundation.ending,
            heartbeats,
            budgets=budgets,
            shares=UserShares(settings.max_concurrent_model_calls),
        ),
        tools=_tool_activities(foundation, tools, files, heartbeats, on_alert=on_alert),
        trials=ToolTrialActivities(ToolTrialRuns(database, tools.executor)),
        mcp=McpActivities(tools.mcp_refresh),
        callbacks=CallbackActivities(client, callbacks),
        sweep=SweepActivities(
            client,
            turns=StrandedTurnSearch(database),
            ingestions=StrandedIngestionSearch(database),
            erasure=Erasure(database, foundation.events.erase),
            approvals=make_approvals(foundation),
            callbacks=callbacks,
            files=files,
        ),
        ingestion=IngestionActivities(_ingestion(foundation, on_alert)),
        reembedding=ReembeddingActivities(Reembedding(database, foundation.embedder)),
        after_turn=_after_turn(foundation, gateway, defects),
        alerts=AlertActivities(AlertDelivery(database, webhook)),
        mail=MailActivities(make_mail_sending(foundation)),
        defects=defects,
    )


def make_mail_sending(foundation: Foundation, *, tls: SSLContext | None = None) -> MailSending:
    """Return what sends mail as it is set up; `tls` in place of what this machine trusts."""
    settings = foundation.settings
    letterhead = Letterhead(settings.mail_from or _DEVELOPER, settings.front_end)
    return MailSending(foundation.database, _mail_transport(settings, tls), letterhead)


def _mail_transport(settings: Settings, tls: SSLContext | None) -> Transport | None:
    if settings.smtp_host is None:
        return LogTransport() if settings.mail_log else None
    password = settings.smtp_password
    return SmtpTransport(
        host=settings.smtp_host,
        port=settings.smtp_port,
        encryption=settings.smtp_encryption,
        username=settings.smtp_username,
        password=None if password is None else password.get_secret_value(),
        timeout_s=settings.smtp_timeout_s,
        tls=tls,
    )


def _alert_webhook(settings: Settings, outgoing: OutgoingClient) -> AlertWebhook | None:
    url, secret = settings.alert_webhook_url, settings.alert_webhook_secret
    if url is None or secret is None:
        return None
    return AlertWebhook(outgoing, url, signing_key(secret.get_secret_value()))


def _tool_activities(
    foundation: Foundation,
    tools: WorkerTools,
    files: FileService,
    heartbeats: TurnHeartbeats,
    *,
    on_alert: OnAlert,
) -> ToolActivities:
    database, events = foundation.database, foundation.events
    attempts = ToolAttempts(
        tools.executor,
        ToolLedger(database, on_alert),
        events,
        attempts=foundation.settings.tool_attempts,
    )
    calls = ToolCalls(database, events, tools.executor, attempts, images=ToolImages(files))
    return ToolActivities(calls, make_approvals(foundation), heartbeats)


def _ingestion(foundation: Foundation, on_alert: OnAlert) -> Ingestion:
    limits = ExtractionLimits(document_bytes=foundation.settings.max_document_bytes)
    return Ingestion(foundation.database, Extractor(limits), foundation.embedder, on_alert=on_alert)


def _after_turn(
    foundation: Foundation, gateway: ModelGateway, defects: DefectAlerts
) -> AfterTurnActivities:
    database, pricing = foundation.database, foundation.pricing
    model = foundation.settings.cheap_model
    return AfterTurnActivities(
        DueWorks(database),
        extraction=_extraction(foundation, gateway),
        titles=ChatTitles(database, gateway, pricing, foundation.events, model=model),
        compaction=Compaction(database, gateway, pricing, model=model),
        report=defects.report,
    )


def _extraction(foundation: Foundation, gateway: ModelGateway) -> MemoryExtraction:
    settings, database, embedder = foundation.settings, foundation.database, foundation.embedder
    accounts = AccountCache(database, lifetime_s=settings.account_cache_s)
    return MemoryExtraction(
        database,
        MemoryExtractor(gateway, model=settings.cheap_model),
        foundation.pricing,
        search=MemorySearch(database, embedder),
        suggestions=MemorySuggestions(database, embedder, accounts),
        events=foundation.events,
    )
