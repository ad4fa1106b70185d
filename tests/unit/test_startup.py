"""What lives as long as its process is left out of garbage collections."""

import gc

from workers.startup import pause_collection, resume_collection


def test_objects_created_during_the_start_are_never_collected() -> None:
    thresholds = gc.get_threshold()

    try:
        pause_collection()
        was_paused = not gc.isenabled()
        resume_collection()
        spared = gc.get_freeze_count()
        left = len(gc.get_objects())
        is_collecting = gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
        gc.set_threshold(*thresholds)

    assert was_paused
    assert is_collecting
    assert spared > left
