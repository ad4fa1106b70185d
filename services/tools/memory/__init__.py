"""The tools `remember` and `recall`: the user's memories, kept and found in their name."""

from services.tools.memory.recall import Recall
from services.tools.memory.remember import Remember

__all__ = ["Recall", "Remember"]
