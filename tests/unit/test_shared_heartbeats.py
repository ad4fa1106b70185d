"""How often activities heartbeat that are many at a time."""

import pytest

from activities.heartbeats import HEARTBEAT_INTERVAL_S, SharedHeartbeats


@pytest.mark.parametrize(
    ("under_way", "interval_s"),
    [(1, HEARTBEAT_INTERVAL_S), (25, HEARTBEAT_INTERVAL_S), (50, 1.0), (100, 2.0), (1_000, 2.0)],
)
async def test_the_more_activities_there_are_the_rarer_each_heartbeats(
    under_way: int, interval_s: float
) -> None:
    shared = SharedHeartbeats()
    blocks = [shared.beating() for _ in range(under_way)]
    for block in blocks:
        await block.__aenter__()

    seen = shared.interval_s

    for block in blocks:
        await block.__aexit__(None, None, None)
    assert seen == interval_s
    assert shared.interval_s == HEARTBEAT_INTERVAL_S
