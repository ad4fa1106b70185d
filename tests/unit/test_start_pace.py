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

    waits = seconds(*(pace.delay(USER) for _ in range(8)))

    assert waits == [0.0] * 5 + [0.25, 0.5, 0.75]
    assert seconds(pace.delay(OTHER)) == [0.0]


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
