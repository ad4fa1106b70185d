"""The services that routes call, in one group for each part of the product."""

from dataclasses import dataclass

from redis.asyncio import Redis

from api.temporal_gateway import TemporalGateway
from services.alerts import AlertService
from services.audit import AuditService
from services.auth.callers import Callers
from services.auth.email_verification import EmailVerification
from services.auth.password_reset import PasswordReset
from services.auth.service import AuthService
from services.chats import ChatService
from services.conversation_copies import ConversationCopies
from services.database import Database
from services.erasure import Erasure
from services.events.feed import EventFeed
from services.events.open_streams import OpenStreams
from services.events.user_feed import UserFeed
from services.events.writer import EventWriter
from services.feedback import FeedbackService
from services.files.service import FileService
from services.knowledge.publication import Publication
from services.knowledge.search import KnowledgeSearch
from services.knowledge.service import KnowledgeService
from services.knowledge.versions import DocumentVersions
from services.mcp.service import McpServerService
from services.memories.search import MemorySearch
from services.memories.service import MemoryService
from services.messages import MessageService
from services.prompts.service import PromptService
from services.rate_limits.limiter import RateLimitService
from services.shares import ShareService
from services.subscriptions.offered_models import OfferedModels
from services.subscriptions.overrides import BudgetOverrides
from services.subscriptions.plans import PlanService
from services.subscriptions.service import SubscriptionService
from services.subscriptions.usage import SubscriptionUsageService, UsageReports
from services.tools.administration import ToolAdministration
from services.tools.service import ToolService
from services.tools.trials import ToolTrials
from services.turns.acceptance import TurnAcceptance
from services.turns.approvals import ToolApprovals
from services.turns.cancellation import TurnCancellation
from services.turns.ending import TurnEnding
from services.turns.inspection import TurnInspection, TurnReading
from services.turns.regeneration import TurnRegeneration
from services.users.administration import UserAdministration
from services.users.api_keys import ApiKeyService
from services.users.export import UserExport
from services.users.preferences import PreferencesService
from services.users.service import UserDeletion, UserService
from services.users.sessions import SessionService
from services.workflow_tools.callbacks import ToolCallbacks
from services.workflow_tools.service import WorkflowToolService


@dataclass(frozen=True, slots=True)
class AccountServices:
    """Sign-in, accounts, sessions, preferences and API keys."""

    callers: Callers
    sign_in: AuthService
    password_reset: PasswordReset
    verification: EmailVerification
    sessions: SessionService
    require_verified_email: bool
    users: UserService
    preferences: PreferencesService
    api_keys: ApiKeyService
    exports: UserExport
    deletion: UserDeletion
    administration: UserAdministration


@dataclass(frozen=True, slots=True)
class SubscriptionServices:
    """Plans, their assignment to users, budgets beside them, and usage."""

    plans: PlanService
    assignments: SubscriptionService
    overrides: BudgetOverrides
    models: OfferedModels
    usage: SubscriptionUsageService
    reports: UsageReports


@dataclass(frozen=True, slots=True)
class TurnServices:
    """A turn's life: acceptance, events, approvals, cancellation, inspection.

    Without `open_streams` users may have any number of streams open.
    """

    acceptance: TurnAcceptance
    reading: TurnReading
    cancellation: TurnCancellation
    regeneration: TurnRegeneration
    approvals: ToolApprovals
    inspection: TurnInspection
    ending: TurnEnding
    erasure: Erasure
    events: EventWriter
    feed: EventFeed
    user_feed: UserFeed
    open_streams: OpenStreams | None
    answer_wait_s: float


@dataclass(frozen=True, slots=True)
class MemoryServices:
    """Memories and their search."""

    store: MemoryService
    search: MemorySearch


@dataclass(frozen=True, slots=True)
class KnowledgeServices:
    """Documents, their versions, publication and search."""

    documents: KnowledgeService
    versions: DocumentVersions
    publication: Publication
    search: KnowledgeSearch
    max_document_bytes: int


@dataclass(frozen=True, slots=True)
class ToolServices:
    """Tools as users see them, and the administration of tools of each kind."""

    available: ToolService
    administration: ToolAdministration
    trials: ToolTrials
    mcp_servers: McpServerService
    workflow_tools: WorkflowToolService
    callbacks: ToolCallbacks


@dataclass(frozen=True, slots=True)
class OperationServices:
    """Rate limits, health, and what operators read."""

    database: Database
    redis: Redis
    rate_limits: RateLimitService
    audit: AuditService
    alerts: AlertService


@dataclass(frozen=True, slots=True)
class ApiServices:
    """All that routes call, built once by the composition root."""

    accounts: AccountServices
    subscriptions: SubscriptionServices
    chats: ChatService
    messages: MessageService
    copies: ConversationCopies
    shares: ShareService
    feedback: FeedbackService
    files: FileService
    turns: TurnServices
    memories: MemoryServices
    knowledge: KnowledgeServices
    tools: ToolServices
    prompts: PromptService
    operations: OperationServices
    temporal: TemporalGateway
