"""The rows of the database, one module per noun. Rows never leave `services`."""

from schema.tables.chats import (
    ChatRow,
    ChatSummaryRow,
    FeedbackRow,
    MessageRow,
    ShareRow,
)
from schema.tables.files import AttachmentRow, FileErasureRow, FilePieceRow, FileRow
from schema.tables.knowledge import DocumentRow, DocumentVersionRow, PassageRow
from schema.tables.ledger import LedgerRow, UsageDayRow
from schema.tables.memories import MemoryRow
from schema.tables.plans import BudgetRow, PlanRow, SubscriptionRow
from schema.tables.prompts import PromptActivationRow, PromptRow, PromptVersionRow
from schema.tables.records import AlertRow, AuditRow, CreationRow
from schema.tables.tools import (
    McpServerRow,
    McpToolRow,
    ToolCatalogueRow,
    ToolSettingsRow,
    ToolTrialRow,
    WorkflowToolRow,
)
from schema.tables.turns import (
    ChatToolApprovalRow,
    ErasureRow,
    StepRow,
    ToolCallRow,
    TurnContextRow,
    TurnRow,
)
from schema.tables.users import (
    ApiKeyRow,
    ClosedIdentityRow,
    CredentialRow,
    IdentityRow,
    MailRow,
    PreferencesRow,
    RefreshTokenRow,
    UserRow,
)

__all__ = [
    "AlertRow",
    "ApiKeyRow",
    "AttachmentRow",
    "AuditRow",
    "BudgetRow",
    "ChatRow",
    "ChatSummaryRow",
    "ChatToolApprovalRow",
    "ClosedIdentityRow",
    "CreationRow",
    "CredentialRow",
    "DocumentRow",
    "DocumentVersionRow",
    "ErasureRow",
    "FeedbackRow",
    "FileErasureRow",
    "FilePieceRow",
    "FileRow",
    "IdentityRow",
    "LedgerRow",
    "MailRow",
    "McpServerRow",
    "McpToolRow",
    "MemoryRow",
    "MessageRow",
    "PassageRow",
    "PlanRow",
    "PreferencesRow",
    "PromptActivationRow",
    "PromptRow",
    "PromptVersionRow",
    "RefreshTokenRow",
    "ShareRow",
    "StepRow",
    "SubscriptionRow",
    "ToolCallRow",
    "ToolCatalogueRow",
    "ToolSettingsRow",
    "ToolTrialRow",
    "TurnContextRow",
    "TurnRow",
    "UsageDayRow",
    "UserRow",
    "WorkflowToolRow",
]
