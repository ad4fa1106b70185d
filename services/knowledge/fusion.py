"""Owns making one ranking of several that can't be compared by their scores.

Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual
rank learning methods", SIGIR 2009.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

_K: Final = 60
"""How little the first places count above those behind them; the paper's own value."""


def fused(rankings: Sequence[Sequence[UUID]]) -> list[tuple[UUID, float]]:
    """Return everything ranked anywhere with its score, the best first; ties by the id.

    Each ranking holds a thing once, the best first.
    Units: scores are in (0, 1], 1 for what is first in all of the rankings.
    """
    scores: defaultdict[UUID, float] = defaultdict(float)
    for ranking in rankings:
        for rank, thing in enumerate(ranking, start=1):
            scores[thing] += (_K + 1) / (_K + rank) / len(rankings)
    # Sums of thirds and the like may end a little above what they stand for.
    found = [(thing, min(score, 1.0)) for thing, score in scores.items()]
    return sorted(found, key=lambda one: (-one[1], one[0]))
