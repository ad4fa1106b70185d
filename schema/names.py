"""Owns the names under which processes find each other: queues, workflows, search attributes."""

from datetime import timedelta
from typing import Final

TURNS_QUEUE: Final = "turns"
TOOLS_QUEUE: Final = "tools"
BACKGROUND_QUEUE: Final = "background"
QUEUES: Final = (TURNS_QUEUE, TOOLS_QUEUE, BACKGROUND_QUEUE)

CHAT_TURN: Final = "ChatTurn"
TOOL_CALL_DECIDED: Final = "tool_call_decided"
SWEEP_TURNS: Final = "SweepTurns"
SWEEP_SCHEDULE_ID: Final = "everturn-sweep"
TRY_TOOL: Final = "TryTool"
REFRESH_MCP_SERVER: Final = "RefreshMcpServer"
SWEEP_MCP_SERVERS: Final = "SweepMcpServers"
MCP_SWEEP_SCHEDULE_ID: Final = "everturn-mcp-sweep"
SWEEP_ERASURES: Final = "SweepErasures"
ERASURE_SWEEP_SCHEDULE_ID: Final = "everturn-erasure-sweep"
DELIVER_CALLBACKS: Final = "DeliverCallbacks"
CALLBACK_DELIVERY_SCHEDULE_ID: Final = "everturn-callback-delivery"
INGEST_DOCUMENT: Final = "IngestDocument"
SWEEP_INGESTIONS: Final = "SweepIngestions"
INGESTION_SWEEP_SCHEDULE_ID: Final = "everturn-ingestion-sweep"
REEMBED: Final = "Reembed"
REEMBED_SCHEDULE_ID: Final = "everturn-reembed"

USER_ID_ATTRIBUTE: Final = "EverturnUserId"
CHAT_ID_ATTRIBUTE: Final = "EverturnChatId"
MODEL_ATTRIBUTE: Final = "EverturnModel"

TASK_TIMEOUT: Final = timedelta(seconds=5)
"""How long a worker may sit on a workflow task before another gets it."""
