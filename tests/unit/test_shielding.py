"""Items that fail hold up no others, unless many fail in a row."""

import pytest

from services.shielding import each_alone


async def halved(number: int) -> int:
    if number % 2:
        raise ValueError(number)
    return number // 2


async def test_an_item_that_fails_is_left_out_and_the_others_are_handled() -> None:
    assert await each_alone([2, 3, 4, 5, 6], halved) == [1, 2, 3]


async def test_items_that_fail_far_apart_are_no_outage() -> None:
    assert len(await each_alone(range(100), halved)) == 50


async def test_ten_failures_in_a_row_are_an_outage() -> None:
    handled: list[int] = []

    async def fail(number: int) -> None:
        handled.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="9"):
        await each_alone(range(20), fail)

    assert handled == list(range(10))
