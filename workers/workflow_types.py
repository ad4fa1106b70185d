"""The types of workflows, by the queue whose workers run them, and how they follow versions."""

from collections.abc import Mapping
from typing import Final

from temporalio.common import VersioningBehavior

from schema.names import BACKGROUND_QUEUE, TOOLS_QUEUE, TURNS_QUEUE
from workflows.after_turn import WorkBatch
from workflows.alert_delivery import DeliverAlerts
from workflows.chat_turn import ChatTurn
from workflows.ingest_document import IngestDocument
from workflows.mcp_servers import RefreshMcpServer, SweepMcpServers
from workflows.reembed import Reembed
from workflows.retired import (
    AfterTurn,
    DeliverCallbacks,
    ExtractMemories,
    SweepErasures,
    SweepIngestions,
    SweepTurns,
)
from workflows.send_mail import SendMail
from workflows.sweep import Sweep
from workflows.try_tool import TryTool

WORKFLOWS: Final[Mapping[str, tuple[type, ...]]] = {
    TURNS_QUEUE: (ChatTurn,),
    TOOLS_QUEUE: (RefreshMcpServer, TryTool),
    BACKGROUND_QUEUE: (
        *(Sweep, IngestDocument, Reembed, SweepMcpServers, DeliverAlerts, SendMail, WorkBatch),
        *(SweepTurns, SweepErasures, SweepIngestions, DeliverCallbacks),
        *(AfterTurn, ExtractMemories),
    ),
}
VERSIONING: Final[Mapping[str, VersioningBehavior]] = {
    TURNS_QUEUE: VersioningBehavior.PINNED,
    TOOLS_QUEUE: VersioningBehavior.PINNED,
    BACKGROUND_QUEUE: VersioningBehavior.AUTO_UPGRADE,
}
"""Where workers have versions: whether a run ends on the version that began it."""
ALL_WORKFLOWS: Final = tuple(kind for kinds in WORKFLOWS.values() for kind in kinds)
