"""What all attacks together did to others meanwhile, and to memory; runs after them."""

from statistics import median
from typing import Final

import pytest

from tests.hostile.test_crowded_queue import CROWD
from tests.running_everturn.bystanders import ENOUGH, QUIET, WORKERS, Bystanders

# Allocators keep what they have once had, caches fill: a leak of what attacks send is far more.
_GROWTH_MIB: Final = 200
_TIMES: Final = 4
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
    quiet = bystanders.noticed[QUIET]
    usual_ms = median(quiet.first_tokens)
    stall_ms = max(_STALL_MS, _STALL_TIMES * usual_ms)

    # A crowd has a bound of its own.
    attacks = [name for name in bystanders.noticed if name not in {QUIET, CROWD}]
    assert attacks
    for attack in attacks:
        noticed = bystanders.noticed[attack]
        assert max(noticed.first_tokens + noticed.reads) < stall_ms, attack
        if len(noticed.first_tokens) >= ENOUGH:
            assert median(noticed.first_tokens) < _TIMES * usual_ms, attack
