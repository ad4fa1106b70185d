"""What all attacks together leave behind in memory; runs after them."""

import pytest

from tests.running_everturn.bystanders import WORKERS, Bystanders

# Allocators keep what they have once had, caches fill: a leak of what attacks send is far more.
_GROWTH_MIB = 200


@pytest.mark.parametrize("names", [("api",), WORKERS], ids=["api", "workers"])
async def test_memory_is_as_before_all_attacks(
    bystanders: Bystanders, names: tuple[str, ...]
) -> None:
    before = bystanders.before.api_mib if names == ("api",) else bystanders.before.workers_mib

    assert bystanders.resident_mib(*names) < before + _GROWTH_MIB
