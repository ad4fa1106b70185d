"""Resources of the API, as its responses carry them; `chat_models.py` has those of chats.

Fields that a newer server adds are kept (`model_extra`), and the values of enumerations are plain
strings, so that a new one breaks nothing. Times are aware datetimes, money is `Decimal` in USD.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic.alias_generators import to_camel


class Resource(BaseModel):
    """Anything that the API sends. `model_dump(by_alias=True)` gives the names on the wire."""

    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True
    )


class TokenUsage(Resource):
    """How many tokens were read and written."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class User(Resource):
    """An account. `role` is `user` or `admin`."""

    version: int
    id: str
    email: str | None
    email_verified: bool = False
    pending_email: str | None = None
    display_name: str | None = None
    role: str
    created_at: datetime
    updated_at: datetime


class SentLink(Resource):
    """A link on its way to an email address. Units: `expires_in` is in seconds."""

    email: str
    expires_in: int


class SignedInSession(Resource):
    """Where a user is signed in; `current` is the session of the request."""

    id: str
    created_at: datetime
    last_used_at: datetime
    user_agent: str | None = None
    network: str | None = None
    current: bool


class Session(Resource):
    """The tokens of a sign-in. Units: `expires_in` is in seconds."""

    access_token: SecretStr
    refresh_token: SecretStr
    token_type: str = "bearer"  # noqa: S105 -- the type of a token, not one
    expires_in: int
    user: User


class Preferences(Resource):
    """A user's preferences."""

    version: int
    language: str | None = None
    time_zone: str | None = None
    instructions: str | None = None
    default_model: str | None = None
    use_memories: bool = True
    use_knowledge: bool = True
    auto_accept_memories: bool = False
    extract_memories: bool = True
    disabled_tools: list[str] = []
    tool_approvals: dict[str, str] = {}


class BudgetLimits(Resource):
    """Budgets for a month and for a day, in USD and in tokens; None where there is none."""

    budget_usd: Decimal | None = None
    daily_budget_usd: Decimal | None = None
    budget_tokens: int | None = None
    daily_budget_tokens: int | None = None


class AmountUse(Resource):
    """A budget in one unit: `used` by finished calls, `reserved` for running ones.

    `limit` and `left` are None where there is no limit.
    """

    limit: Decimal | None = None
    used: Decimal
    reserved: Decimal
    left: Decimal | None = None


class WindowUse(Resource):
    """What was spent in a day or month, and when the next begins."""

    starts_at: datetime
    resets_at: datetime
    usd: AmountUse
    tokens: AmountUse


class BudgetUse(BudgetLimits):
    """Limits, and what was spent of them."""

    day: WindowUse
    month: WindowUse


class ApiKey(Resource):
    """An API key, without the key itself; `start` is how it begins."""

    id: str
    name: str
    start: str
    permissions: list[str]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    budget: BudgetUse | None = None


class CreatedApiKey(ApiKey):
    """A new API key with the key itself, which is never shown again."""

    key: SecretStr | None = None


class Memory(Resource):
    """A memory of a user. `status` is `suggested`, `accepted`, `rejected` or `replaced`.

    Accepting a suggestion with `replaces_id` marks that memory as replaced.
    """

    version: int
    id: str
    kind: str
    content: str
    importance: float
    status: str
    source_turn_id: str | None = None
    passage: str | None = None
    replaces_id: str | None = None
    replaced_by_id: str | None = None
    pinned: bool = False
    expires_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


class MemoryHit(Memory):
    """A memory that a search found.

    `score` is comparable within one search only; `similarity` is the cosine of both meanings, and
    `word_match` the share of the query's words that the memory contains.
    """

    score: float
    similarity: float | None = None
    word_match: float = 0.0


class Ingestion(Resource):
    """The progress of a document's ingestion: `pending`, `processing`, `ready` or `failed`."""

    status: str
    problem: str | None = None
    passage_count: int
    embedded_count: int


class File(Resource):
    """An uploaded file, or an image that a tool returned. Units: `size` is in bytes."""

    id: str
    name: str
    content_type: str
    size: int
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    origin: str
    attached: bool
    created_at: datetime


class Document(Resource):
    """A document of the knowledge base. `status` is `draft` or `published`."""

    version: int
    id: str
    title: str
    status: str
    own: bool
    content_type: str
    latest_version: int
    published_version: int | None = None
    ingestion: Ingestion
    created_at: datetime
    updated_at: datetime


class DocumentVersion(Ingestion):
    """A version of a document."""

    document_id: str
    number: int
    content_type: str
    published: bool
    created_at: datetime
    finished_at: datetime | None = None


class DocumentText(DocumentVersion):
    """A version of a document with its text."""

    content: str | None = None


class KnowledgeHit(Resource):
    """A passage that a search found, and its place in the document."""

    document_id: str
    title: str
    version: int
    passage_id: str
    position: int
    content: str
    start_char: int
    end_char: int
    score: float
    own: bool


class Tool(Resource):
    """A tool that the caller's turns may use."""

    name: str
    description: str
    input_schema: dict[str, Any]
    kind: str
    approval: str
    retry_class: str
    timeout_s: float
    enabled_by_user: bool


class Entitlements(BudgetLimits):
    """A plan's limits; None where there is none."""

    models: list[str] | None = None
    tools: list[str] | None = None
    tool_approvals: dict[str, str] = {}
    rates: dict[str, int] = {}


class SubscribedPlan(Resource):
    """The plan of the caller."""

    id: str
    name: str
    description: str
    entitlements: Entitlements


class Period(Resource):
    """A billing period."""

    start: datetime
    end: datetime


class Subscription(Resource):
    """The caller's plan and the current period."""

    plan: SubscribedPlan
    period: Period
    since: datetime | None = None


class Quota(Resource):
    """Usage and its limit; None where there is no limit."""

    used: int
    limit: int | None = None


class Budget(Resource):
    """The money of the period; `day` and `month` are None for another than the current one."""

    limit_usd: Decimal | None = None
    left_usd: Decimal | None = None
    day: WindowUse | None = None
    month: WindowUse | None = None


class SubscriptionUsage(Resource):
    """What the caller has used in a period."""

    period: Period
    usage: TokenUsage
    cost_usd: Decimal
    cache_saved_usd: Decimal = Decimal(0)
    turns: int
    messages: int
    tool_calls: int
    memories: Quota
    documents: Quota
    web_searches: Quota
    budget: Budget


class UsageRow(Resource):
    """What was used in total by one user, of one model or on one day."""

    calls: int
    turns: int
    usage: TokenUsage
    cost_usd: Decimal
    user_id: str | None = None
    model: str | None = None
    day: date | None = None
