"""Names that processes share: queues, workflows, search attributes."""

from datetime import timedelta
from enum import StrEnum
from typing import Final

TURNS_QUEUE: Final = "turns"
TOOLS_QUEUE: Final = "tools"
BACKGROUND_QUEUE: Final = "background"
QUEUES: Final = (TURNS_QUEUE, TOOLS_QUEUE, BACKGROUND_QUEUE)

DEPLOYMENT: Final = "everturn"
"""What Temporal calls all versions of the workers together."""
DEV_BUILD_ID: Final = "dev"
"""The version of `everturn dev`, which makes itself current."""

CHAT_TURN: Final = "ChatTurn"
TOOL_CALL_DECIDED: Final = "tool_call_decided"
TRY_TOOL: Final = "TryTool"
REFRESH_MCP_SERVER: Final = "RefreshMcpServer"
SWEEP_MCP_SERVERS: Final = "SweepMcpServers"
INGEST_DOCUMENT: Final = "IngestDocument"
REEMBED: Final = "Reembed"
WORK_BATCH: Final = "WorkBatch"
SWEEP: Final = "Sweep"
DELIVER_ALERTS: Final = "DeliverAlerts"
SEND_MAIL: Final = "SendMail"
ALERT_DELIVERY_ID: Final = "alert-delivery"
"""The one run that delivers alerts at a time."""


class Work(StrEnum):
    """What may be due after a turn."""

    EXTRACT_MEMORIES = "extract_memories"
    TITLE_CHAT = "title_chat"
    COMPACT_CHAT = "compact_chat"


USER_ID_ATTRIBUTE: Final = "EverturnUserId"
CHAT_ID_ATTRIBUTE: Final = "EverturnChatId"
MODEL_ATTRIBUTE: Final = "EverturnModel"
STATUS_ATTRIBUTE: Final = "EverturnStatus"
ERROR_CODE_ATTRIBUTE: Final = "EverturnErrorCode"
COST_ATTRIBUTE: Final = "EverturnCostUsd"
FAILED_TOOLS_ATTRIBUTE: Final = "EverturnFailedTools"
PLAN_ATTRIBUTE: Final = "EverturnPlan"
SEARCH_ATTRIBUTES: Final = {
    USER_ID_ATTRIBUTE: "Keyword",
    CHAT_ID_ATTRIBUTE: "Keyword",
    MODEL_ATTRIBUTE: "Keyword",
    STATUS_ATTRIBUTE: "Keyword",
    ERROR_CODE_ATTRIBUTE: "Keyword",
    COST_ATTRIBUTE: "Double",
    FAILED_TOOLS_ATTRIBUTE: "KeywordList",
    PLAN_ATTRIBUTE: "Keyword",
}
"""What a namespace must have, with types as Temporal's command line names them."""

TASK_TIMEOUT: Final = timedelta(seconds=5)
"""How long a worker may hold a workflow task before another gets it."""
