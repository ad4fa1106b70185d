"""What waits for one client of a stream, while it reads slowly or not at all."""

import pytest

from schema.events import EventId, EventName, StreamedEvent
from services.events.hub import PAGE_BYTES, StreamInterruptedError, Subscription


def event(number: int, *, size: int = 10) -> StreamedEvent:
    return StreamedEvent(EventId(5, number), EventName.DELTA, "x" * size)


async def test_events_wait_for_their_client_in_order() -> None:
    subscription = Subscription()
    events = [event(number) for number in range(5)]
    for each in events:
        subscription.offer(each)

    assert await subscription.take(within_s=1) == events
    assert await subscription.take(within_s=0.01) == []


@pytest.mark.parametrize(("count", "size"), [(1001, 10), (5, PAGE_BYTES // 4)])
async def test_a_client_that_lags_behind_reads_again(count: int, size: int) -> None:
    subscription = Subscription()
    for number in range(count):
        subscription.offer(event(number, size=size))

    assert subscription._received == []
    with pytest.raises(StreamInterruptedError):
        await subscription.take(within_s=1)


async def test_one_long_event_is_no_lag() -> None:
    subscription = Subscription()
    long = event(1, size=10 * PAGE_BYTES)
    subscription.offer(long)

    assert await subscription.take(within_s=1) == [long]
    subscription.offer(event(2))
    assert await subscription.take(within_s=1) == [event(2)]
