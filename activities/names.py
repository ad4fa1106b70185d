"""Owns the names of activities and of the failures that workflows tell apart: a wire format.

Running workflows know activities by these names; a changed name breaks them.
"""

from typing import Final

PREPARE_TURN: Final = "prepare_turn"
CALL_MODEL: Final = "call_model"
RUN_TOOL: Final = "run_tool"
FINISH_TURN: Final = "finish_turn"
FIND_STRANDED_TURNS: Final = "find_stranded_turns"

MODEL_EXHAUSTED: Final = "ModelExhausted"
MODEL_FAILED: Final = "ModelFailed"
TURN_STOPPED: Final = "TurnStopped"
