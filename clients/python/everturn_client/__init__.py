"""The Python client of Everturn.

from everturn_client import Everturn

client = Everturn("http://127.0.0.1:8000")
client.auth.login(email="ada@example.com", password="correct horse battery staple")
chat = client.chats.create(title="Numbers")
with client.messages.stream(chat.id, content="What is 6 * 7?") as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
"""

from everturn_client.calls import UNSET
from everturn_client.client import AsyncEverturn, Everturn
from everturn_client.endpoints import AsyncPages, Page, Pages
from everturn_client.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ConflictError,
    EverturnError,
    IdempotencyConflictError,
    ModelRejectedError,
    ModelUnavailableError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    PreconditionFailedError,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
    SessionExpiredError,
    StreamInterruptedError,
    TurnFailedError,
    TurnInProgressError,
    UnexpectedResponseError,
)
from everturn_client.events import (
    DeltaEvent,
    DoneEvent,
    ErrorEvent,
    Event,
    EventParser,
    NoticeEvent,
    StepEvent,
    ToolCallEvent,
    TurnEvent,
    TurnState,
    UnknownEvent,
    UsageEvent,
    parse_event,
)
from everturn_client.exchange import Tokens, TokenStore
from everturn_client.models import (
    Answer,
    Chat,
    Document,
    KnowledgeHit,
    Memory,
    MemoryHit,
    Message,
    Session,
    TokenUsage,
    Tool,
    Turn,
    User,
)
from everturn_client.streams import AsyncTurnStream, TurnResult, TurnStream

__all__ = [
    "UNSET",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "Answer",
    "AsyncEverturn",
    "AsyncPages",
    "AsyncTurnStream",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "Chat",
    "ConflictError",
    "DeltaEvent",
    "Document",
    "DoneEvent",
    "ErrorEvent",
    "Event",
    "EventParser",
    "Everturn",
    "EverturnError",
    "IdempotencyConflictError",
    "KnowledgeHit",
    "Memory",
    "MemoryHit",
    "Message",
    "ModelRejectedError",
    "ModelUnavailableError",
    "NotFoundError",
    "NoticeEvent",
    "Page",
    "Pages",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "RateLimitError",
    "ServerError",
    "ServiceUnavailableError",
    "Session",
    "SessionExpiredError",
    "StepEvent",
    "StreamInterruptedError",
    "TokenStore",
    "TokenUsage",
    "Tokens",
    "Tool",
    "ToolCallEvent",
    "Turn",
    "TurnEvent",
    "TurnFailedError",
    "TurnInProgressError",
    "TurnResult",
    "TurnState",
    "TurnStream",
    "UnexpectedResponseError",
    "UnknownEvent",
    "UsageEvent",
    "User",
    "parse_event",
]
