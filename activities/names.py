"""Names of activities, and of failures that workflows distinguish: a wire format.

Running workflows know activities by these names; a changed name breaks them.
"""

from typing import Final

PREPARE_TURN: Final = "prepare_turn"
BEGIN_TURN: Final = "begin_turn"
CALL_MODEL: Final = "call_model"
TELL_DECISIONS: Final = "tell_decisions"
ASK_APPROVAL: Final = "ask_approval"
RUN_TOOL: Final = "run_tool"
AWAIT_CALLBACK: Final = "await_callback"
DELIVER_CALLBACKS: Final = "deliver_callbacks"
FINISH_TURN: Final = "finish_turn"
FIND_STRANDED_TURNS: Final = "find_stranded_turns"
TRY_TOOL: Final = "try_tool"
LIST_MCP_TOOLS: Final = "list_mcp_tools"
FIND_MCP_SERVERS: Final = "find_mcp_servers"
ERASE_STREAMS: Final = "erase_streams"
SWEEP_FILES: Final = "sweep_files"
EXTRACT_DOCUMENT: Final = "extract_document"
EMBED_PASSAGES: Final = "embed_passages"
FINISH_INGESTION: Final = "finish_ingestion"
FIND_STRANDED_INGESTIONS: Final = "find_stranded_ingestions"
COUNT_STALE: Final = "count_stale"
EMBED_BATCH: Final = "embed_batch"
DELIVER_ALERTS: Final = "deliver_alerts"
SEND_MAIL: Final = "send_mail"
DO_WORKS: Final = "do_works"

MODEL_EXHAUSTED: Final = "ModelExhausted"
MODEL_FAILED: Final = "ModelFailed"
PROMPT_TOO_LARGE: Final = "PromptTooLarge"
TURN_STOPPED: Final = "TurnStopped"
BUDGET_EXCEEDED: Final = "BudgetExceeded"
TOOL_POSTPONED: Final = "ToolPostponed"
SHARE_TAKEN: Final = "ShareTaken"
MAIL_POSTPONED: Final = "MailPostponed"

INGESTION_REFUSED: Final = "IngestionRefused"
INGESTION_FALTERED: Final = "IngestionFaltered"
EMBEDDING_REFUSED: Final = "EmbeddingRefused"
