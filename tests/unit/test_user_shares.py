"""A user's share of a worker's slots."""

from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import names
from activities.user_shares import UserShares
from schema.ids import UserId

USER, OTHER = UserId(uuid4()), UserId(uuid4())


async def take(shares: UserShares, user_id: UserId, *, times: int = 1) -> AsyncExitStack:
    """Take places inside an activity, until the stack is closed."""

    async def taking() -> AsyncExitStack:
        async with AsyncExitStack() as taken:
            for _ in range(times):
                await taken.enter_async_context(shares.place(user_id))
            return taken.pop_all()

    return await ActivityEnvironment().run(taking)


async def test_a_user_gets_half_of_the_slots_and_others_the_rest() -> None:
    shares = UserShares(4)

    async with await take(shares, USER, times=2):
        with pytest.raises(ApplicationError) as refused:
            await take(shares, USER)
        async with await take(shares, OTHER, times=2):
            pass

    assert (refused.value.type, refused.value.non_retryable) == (names.SHARE_TAKEN, False)


async def test_a_place_is_free_again_after_its_call() -> None:
    shares = UserShares(2)

    for _ in range(3):
        async with await take(shares, USER):
            with pytest.raises(ApplicationError):
                await take(shares, USER)


async def test_a_worker_with_one_slot_serves_every_user() -> None:
    shares = UserShares(1)

    async with await take(shares, USER), await take(shares, OTHER):
        with pytest.raises(ApplicationError):
            await take(shares, USER)
