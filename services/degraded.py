"""Owns counting searches that had to do without something, for the metrics of their process."""

from typing import Final

from prometheus_client import Counter

KNOWLEDGE_WITHOUT_VECTORS: Final = Counter(
    "everturn_knowledge_searches_without_vectors",
    "Searches of knowledge that words alone decided, since the query could not be embedded.",
)
CONTEXT_MISSED: Final = Counter(
    "everturn_context_searches_missed",
    "Parts of a turn's context that were not found in time, or not at all.",
    ("part", "cause"),
)
