"""Rate limits: their arithmetic, counting in one process, and whom they are counted for."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.ids import UserId
from services.rate_limits.local_windows import LocalWindows
from services.rate_limits.rules import Group, Limit, LimitSet, RateLimits
from services.rate_limits.shared_windows import limit_key
from services.rate_limits.subjects import account_subject, address_subject, user_subject
from services.rate_limits.windows import Decision, decide

KEYS = ("first", "second")


class Clock:
    """A clock that stands until it is told."""

    def __init__(self, now_ms: int = 0) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def per_second(amount: int, group: Group = Group.REQUESTS) -> Limit:
    return Limit(group, amount, timedelta(seconds=1))


def counting(clock: Clock, *limits: Limit) -> Callable[..., Decision]:
    windows = LocalWindows(now_ms=clock)

    def hit(cost: int = 1, only: LimitSet = limits) -> Decision:
        allowed, left = windows.take(KEYS[: len(only)], only, cost)
        return decide(only, left, cost=cost, allowed=allowed)

    return hit


def test_as_many_as_the_limit_says_are_allowed_and_no_more() -> None:
    hit = counting(Clock(), per_second(3))

    decisions = [hit() for _ in range(5)]

    assert [decision.allowed for decision in decisions] == [True, True, True, False, False]
    assert [decision.remaining for decision in decisions] == [2, 1, 0, 0, 0]


def test_what_was_taken_fades_over_the_window_after_it() -> None:
    clock = Clock()
    hit = counting(clock, per_second(10))
    assert hit(cost=10).allowed

    clock.now_ms = 1_000
    at_once = hit()
    clock.now_ms = 1_500
    half = [hit().allowed for _ in range(6)]

    assert not at_once.allowed
    assert at_once.reset_after == timedelta(milliseconds=100)
    assert half == [True] * 5 + [False]


def test_nothing_is_left_of_two_windows_ago() -> None:
    clock = Clock()
    hit = counting(clock, per_second(10))
    hit(cost=10)

    clock.now_ms = 2_000

    assert hit().remaining == 9


def test_a_burst_over_the_edge_of_a_window_is_no_way_to_twice_as_much() -> None:
    clock = Clock(990)
    hit = counting(clock, per_second(10))
    before = sum(hit().allowed for _ in range(20))

    clock.now_ms = 1_010
    behind = sum(hit().allowed for _ in range(20))

    assert (before, behind) == (10, 0)


@given(
    amount=st.integers(1, 50),
    costs=st.lists(st.tuples(st.integers(0, 700), st.integers(1, 60)), max_size=40),
    cost=st.integers(1, 50),
)
def test_what_is_refused_is_allowed_after_the_time_told_and_not_before(
    amount: int, costs: list[tuple[int, int]], cost: int
) -> None:
    clock = Clock()
    limit = per_second(amount)
    windows = LocalWindows(now_ms=clock)
    for pause_ms, taken in costs:
        clock.now_ms += pause_ms
        windows.take(KEYS[:1], (limit,), taken)
    allowed, left = windows.take(KEYS[:1], (limit,), cost)
    if allowed or cost > amount:
        return
    decision = decide((limit,), left, cost=cost, allowed=False)

    clock.now_ms += decision.reset_after // timedelta(milliseconds=1) - 1
    too_early, _ = windows.take(KEYS[:1], (limit,), cost)
    clock.now_ms += 1
    in_time, _ = windows.take(KEYS[:1], (limit,), cost)

    assert (too_early, in_time) == (False, True)


def test_where_one_limit_refuses_no_other_is_charged() -> None:
    clock = Clock()
    wide, narrow = per_second(10), per_second(1, Group.MESSAGES)
    hit = counting(clock, wide, narrow)

    first, *others = [hit() for _ in range(5)]

    assert (first.allowed, first.limit, first.remaining) == (True, narrow, 0)
    assert {(other.allowed, other.limit) for other in others} == {(False, narrow)}
    assert hit(only=(wide,)).remaining == 8


def test_of_two_limits_that_refuse_the_longer_wait_is_told() -> None:
    hour = Limit(Group.UPLOADS, 1, timedelta(hours=1))
    hit = counting(Clock(), per_second(1), hour)
    hit()

    assert hit().limit == hour


@pytest.mark.parametrize(("amount", "cost"), [(0, 1), (3, 4)])
def test_what_is_never_allowed_is_refused(amount: int, cost: int) -> None:
    decision = counting(Clock(), per_second(amount))(cost)

    assert not decision.allowed
    assert decision.reset_after == timedelta(seconds=1)


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    clock = Clock(5_000)
    hit = counting(clock, per_second(2))
    hit(cost=2)

    clock.now_ms = 2_500

    assert not hit().allowed


def test_only_the_keys_used_last_are_remembered() -> None:
    windows = LocalWindows(now_ms=Clock(), most_keys=2)
    limits = (per_second(1),)
    for key in ("a", "b", "a", "c"):
        windows.take([key], limits, 1)

    allowed = [windows.take([key], limits, 1)[0] for key in ("a", "b")]

    assert allowed == [False, True]


def test_each_request_is_counted_as_one_whatever_else_it_is() -> None:
    limits = RateLimits(requests_per_minute=5, messages_per_minute=2)

    assert [limit.group for limit in limits.of(Group.MESSAGES)] == ["requests", "messages"]
    assert [limit.amount for limit in limits.of(Group.MESSAGES)] == [5, 2]
    assert [limit.group for limit in limits.of(Group.REQUESTS)] == ["requests"]


@pytest.mark.parametrize("group", [Group.MESSAGES, Group.SEARCHES, Group.UPLOADS, Group.EXPORTS])
def test_a_group_of_a_plan_has_a_limit_of_its_own(group: Group) -> None:
    assert [limit.group for limit in RateLimits().of(group)] == [Group.REQUESTS, group]


@pytest.mark.parametrize(
    ("host", "subject"),
    [
        ("192.0.2.7", "address:192.0.2.7"),
        ("::ffff:192.0.2.7", "address:192.0.2.7"),
        ("2001:db8:1:2::7", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:3::7", "address:2001:db8:1:3::/64"),
        ("fe80::1%eth0", "address:fe80::/64"),
        (None, "address:unknown"),
        ("", "address:unknown"),
        ("unknown", "address:unknown"),
        ("192.0.2.7\x00{}", "address:unknown"),
    ],
)
def test_an_address_is_counted_with_those_of_the_same_customer(
    host: str | None, subject: str
) -> None:
    assert address_subject(host) == subject


def test_an_account_is_counted_whatever_case_its_address_is_written_in() -> None:
    subject = account_subject("Ada@Example.com")

    assert subject == account_subject("ada@example.com")
    assert "ada" not in subject


def test_an_address_that_no_text_can_be_made_of_is_counted_too() -> None:
    assert account_subject("\ud800@example.com").startswith("account:")


def test_the_keys_of_a_subject_lie_in_one_slot() -> None:
    subject = user_subject(UserId(UUID(int=1)))

    keys = [limit_key(subject, limit) for limit in RateLimits().of(Group.MESSAGES)]

    assert len(set(keys)) == 2
    assert all(key.startswith(f"everturn:{{{subject}}}:limit:") for key in keys)
