"""The scripted model's cache keeps the provider's rules: prefixes, marks, look-back, least size."""

from typing import Any

import pytest

from tests.fakes.scripted_model.caching import LOOK_BACK, PrefixCache

MARK = {"cache_control": {"type": "ephemeral"}}
LONG = "word " * 2_000


def text(content: str, *, marked: bool = False) -> dict[str, Any]:
    return {"type": "text", "text": content, **(MARK if marked else {})}


def request(
    *blocks: dict[str, Any], model: str = "claude-sonnet-5-5", system: str = LONG
) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": 1,
        "system": [text(system, marked=True)],
        "messages": [{"role": "user", "content": list(blocks)}],
    }


def counts(cache: PrefixCache, body: dict[str, Any]) -> tuple[int, int, int]:
    usage = cache.take(body)
    return (
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        usage.input_tokens,
    )


def test_what_is_marked_is_written_once_and_read_from_then_on() -> None:
    cache = PrefixCache()

    assert counts(cache, request(text("a" * 40))) == (0, 2_500, 10)
    assert counts(cache, request(text("b" * 80))) == (2_500, 0, 20)


def test_a_later_mark_continues_from_an_earlier_one_and_writes_the_rest() -> None:
    cache = PrefixCache()
    cache.take(request(text("a" * 40)))

    assert counts(cache, request(text("a" * 40, marked=True), text("b" * 40))) == (2_500, 10, 10)
    longer = request(text("a" * 40), text("b" * 40, marked=True))
    assert counts(cache, longer) == (2_510, 10, 0)


@pytest.mark.parametrize(("blocks", "is_found"), [(LOOK_BACK - 1, True), (LOOK_BACK, False)])
def test_a_mark_is_found_from_the_next_ones_only(blocks: int, *, is_found: bool) -> None:
    cache = PrefixCache()
    cache.take(request(text("a" * 40, marked=True)))
    others = [text("b" * 4) for _ in range(blocks - 1)]

    read, *_ = counts(cache, request(text("a" * 40), *others, text("b" * 4, marked=True)))

    # The system prompt's own mark is found all the same.
    assert read == (2_510 if is_found else 2_500)


@pytest.mark.parametrize("change", [{"model": "claude-haiku-5-5"}, {"system": "Word " + LONG}])
def test_any_difference_before_a_mark_is_another_prompt(change: dict[str, str]) -> None:
    cache = PrefixCache()
    cache.take(request(text("a")))

    assert counts(cache, request(text("a"), **change))[0] == 0


def test_a_short_prompt_is_not_cached_and_an_old_one_is_forgotten() -> None:
    now = [0.0]
    cache = PrefixCache(clock=lambda: now[0])

    assert counts(cache, request(text("a"), system="short"))[1] == 0
    cache.take(request(text("a")))
    now[0] = 299
    assert counts(cache, request(text("a")))[0] == 2_500
    now[0] = 600
    assert counts(cache, request(text("a")))[:2] == (0, 2_500)
