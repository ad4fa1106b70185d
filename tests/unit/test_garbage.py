"""What stays is left out of garbage collections."""

import gc

from workers.garbage import spare_what_stays


def test_what_is_there_by_then_is_looked_through_no_more() -> None:
    thresholds = gc.get_threshold()

    try:
        spare_what_stays()
        spared = gc.get_freeze_count()
        left = len(gc.get_objects())
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)

    assert spared > left
