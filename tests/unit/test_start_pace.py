"""The pace at which a user's turns begin."""

from datetime import timedelta
from uuid import uuid4

import pytest

from api.start_pace import StartPace
from schema.ids import UserId

USER, OTHER = UserId(uuid4()), UserId(uuid4())


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def seconds(*delays: timedelta) -> list[float]:
    return [delay.total_seconds() for delay in delays]


def test_a_user_alone_waits_for_nothing(clock: Clock) -> None:
    pace = StartPace(per_second=4, clock=clock)

    assert seconds(*(pace.delay(USER) for _ in range(100))) == [0.0] * 100


def test_a_burst_begins_at_once_and_more_of_it_one_after_the_other(clock: Clock) -> None:
    pace = StartPace(per_second=4, clock=clock)
    pace.delay(OTHER)

    waits = seconds(*(pace.delay(USER) for _ in range(9)))

    # The other's one message of late is one a second.
    assert waits[:5] == [0.0] * 5
    assert waits[6:] == pytest.approx([waits[5] + more / 5 for more in (1, 2, 3)], abs=1e-5)
    assert 0 < waits[5] < 1 / 4
    assert seconds(pace.delay(OTHER)) == [0.0]


def test_users_who_are_as_busy_do_not_wait_for_each_other(clock: Clock) -> None:
    pace = StartPace(per_second=8, clock=clock)

    waits = []
    for _ in range(100):
        waits += seconds(pace.delay(USER), pace.delay(OTHER))
        clock.now_s += 1 / 20

    # Until it shows how busy they are, a moment.
    assert max(waits) < 0.5
    assert waits[100:] == [0.0] * 100


def test_of_many_users_the_quieter_half_sets_the_pace(clock: Clock) -> None:
    pace = StartPace(per_second=4, clock=clock)
    for _ in range(3):
        pace.delay(UserId(uuid4()))

    waits = []
    for _ in range(40):
        waits += seconds(pace.delay(USER), pace.delay(OTHER))

    assert waits[-1] == pytest.approx(40 / 5 - 1, abs=0.3)


def test_time_that_passes_is_time_that_a_crowd_has_waited(clock: Clock) -> None:
    pace = StartPace(per_second=4, clock=clock)
    pace.delay(OTHER)
    for _ in range(8):
        pace.delay(USER)

    clock.now_s += 1.5

    assert seconds(*(pace.delay(USER) for _ in range(3))) == [0.0, 0.0, 0.0]


def test_others_who_stopped_chatting_slow_no_one(clock: Clock) -> None:
    pace = StartPace(per_second=4, clock=clock)
    pace.delay(OTHER)
    for _ in range(40):
        pace.delay(USER)

    clock.now_s += 11

    assert seconds(*(pace.delay(USER) for _ in range(40))) == [0.0] * 40
