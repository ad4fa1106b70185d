"""What all attacks together did to others meanwhile, and to memory; runs after them."""

from statistics import median
from typing import Final

import pytest

from tests.load.client import spread
from tests.running_everturn.bystanders import WORKERS, Bystanders

# Allocators keep what they have once had, caches fill: a leak of what attacks send is far more.
_GROWTH_MIB: Final = 200
_TIMES: Final = 2
_UNNOTICED_MS: Final = 50
"""A read takes 10 ms on a machine with nothing else to do."""
_STALL_MS: Final = 2_000
_STALL_TIMES: Final = 15
"""On a busy machine, quiet rounds take longer too."""


@pytest.mark.parametrize("names", [("api",), WORKERS], ids=["api", "workers"])
async def test_memory_is_as_before_all_attacks(
    bystanders: Bystanders, names: tuple[str, ...]
) -> None:
    before = bystanders.resident_before[names]

    assert bystanders.resident_mib(*names) < before + _GROWTH_MIB


async def test_no_attack_kept_others_waiting(bystanders: Bystanders) -> None:
    assert bystanders.noticed
    for attack, noticed in bystanders.noticed.items():
        calm = bystanders.calm_beside(noticed)
        stall_ms = max(_STALL_MS, _STALL_TIMES * median(calm.first_tokens))
        assert max(noticed.first_tokens + noticed.reads) < stall_ms, attack
        assert _has_kept(noticed.first_tokens, calm.first_tokens), f"{attack}: first tokens"
        assert _has_kept(noticed.reads, calm.reads), f"{attack}: reads"


def _has_kept(during_ms: list[float], calm_ms: list[float]) -> bool:
    """Whether the 95th percentile may well be at most twice that of quiet rounds.

    Then five rounds in a hundred take longer; chance makes more than a quarter of them in one
    of ten thousand cases.
    """
    longest_ms = max(_TIMES * spread(calm_ms).p95, _UNNOTICED_MS)
    return sum(took_ms > longest_ms for took_ms in during_ms) <= 1 + len(during_ms) // 4
