"""Rate limits: several at once, the fields of a decision, and the subjects they count for."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from schema.ids import UserId
from schema.plans import RateLimits
from services.rate_limits.limiter import Decision, RateLimitService, take
from services.rate_limits.rules import (
    AuthLimits,
    Group,
    Limit,
    LimitSet,
    account_subject,
    address_subject,
    limits_for,
)

HOUR = timedelta(hours=1)
SUBJECT = "user:someone"


def hourly(amount: int, group: Group = Group.REQUESTS) -> Limit:
    return Limit(group, amount, HOUR)


def counting(*limits: Limit) -> Callable[..., Awaitable[Decision]]:
    counter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def hit(only: LimitSet = limits) -> Decision:
        return await take(counter, SUBJECT, only)

    return hit


async def test_requests_are_allowed_up_to_the_limit() -> None:
    hit = counting(hourly(3))

    decisions = [await hit() for _ in range(5)]

    assert [decision.allowed for decision in decisions] == [True, True, True, False, False]
    assert [decision.remaining for decision in decisions] == [2, 1, 0, 0, 0]
    assert all(timedelta(0) < decision.reset_after <= HOUR for decision in decisions)


async def test_concurrent_requests_respect_every_limit() -> None:
    hit = counting(hourly(20), hourly(7, Group.MESSAGES))

    decisions = await asyncio.gather(*(hit() for _ in range(50)))

    assert sum(decision.allowed for decision in decisions) == 7


async def test_a_rejection_by_one_limit_charges_no_other() -> None:
    wide, narrow = hourly(10), hourly(1, Group.MESSAGES)
    hit = counting(wide, narrow)

    first, *others = [await hit() for _ in range(5)]

    assert (first.allowed, first.limit, first.remaining) == (True, narrow, 0)
    assert {(other.allowed, other.limit) for other in others} == {(False, narrow)}
    assert (await hit(only=(wide,))).remaining == 8


async def test_the_longer_wait_of_two_exceeded_limits_is_reported() -> None:
    minute = Limit(Group.REQUESTS, 1, timedelta(minutes=1))
    day = Limit(Group.UPLOADS, 1, timedelta(days=400))
    hit = counting(minute, day)
    await hit()

    assert (await hit()).limit == day


async def test_a_limit_of_zero_always_rejects() -> None:
    decision = await counting(hourly(0))()

    assert not decision.allowed
    assert decision.remaining == 0
    assert decision.reset_after == HOUR


async def test_disabled_limits_decide_nothing() -> None:
    service = RateLimitService(None, AuthLimits())

    assert await service.auth_request("192.0.2.7") is None
    assert await service.request(UserId(UUID(int=1)), RateLimits(), Group.MESSAGES) is None
    assert not service.is_degraded


def test_messages_also_count_as_requests() -> None:
    rates = RateLimits(requests_per_minute=5, messages_per_minute=2)

    assert [limit.group for limit in limits_for(rates, Group.MESSAGES)] == ["requests", "messages"]
    assert [limit.amount for limit in limits_for(rates, Group.MESSAGES)] == [5, 2]
    assert [limit.group for limit in limits_for(rates, Group.REQUESTS)] == ["requests"]


@pytest.mark.parametrize("group", [Group.MESSAGES, Group.SEARCHES, Group.UPLOADS, Group.EXPORTS])
def test_each_group_of_a_plan_has_its_own_limit(group: Group) -> None:
    assert [limit.group for limit in limits_for(RateLimits(), group)] == [Group.REQUESTS, group]


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


def test_an_email_that_cannot_be_encoded_is_counted_too() -> None:
    assert account_subject("\ud800@example.com").startswith("account:")
