"""What each model takes, how counts correct estimates, and counts that are none."""

from typing import Final

import pytest

from services.models.context_windows import UNKNOWN_WINDOW, ContextWindows
from services.models.failures import FailureKind, ModelCallError
from services.models.gateway import ModelRequest
from services.models.token_counts import TokenCounts
from services.prompts.correction import LastCount, correction_by

WINDOWS: Final = ContextWindows({"mine": 8_192, "tiny": 2_000}, max_output_tokens=4_096)
REQUEST: Final = ModelRequest("m", [], [], [], 100)


@pytest.mark.parametrize(
    ("model", "window"),
    [
        ("claude-haiku-4-5", 200_000),
        ("claude-haiku-5-5", 1_000_000),
        ("mine", 8_192),
        ("nobody-knows", UNKNOWN_WINDOW),
    ],
)
def test_a_window_comes_from_the_settings_the_price_data_or_is_the_usual_one(
    model: str, window: int
) -> None:
    assert WINDOWS.window(model) == window


def test_a_prompt_leaves_the_answer_its_tokens_and_a_margin() -> None:
    assert WINDOWS.takes("claude-haiku-4-5") == 200_000 - 4_096
    assert WINDOWS.prompt_limit("claude-haiku-4-5") == 200_000 - 4_096 - 10_000


def test_a_window_smaller_than_the_longest_answer_still_takes_a_prompt() -> None:
    assert WINDOWS.takes("tiny") == 1_000
    assert WINDOWS.prompt_limit("tiny") == 900


@pytest.mark.parametrize(
    ("counted", "estimated", "correction"),
    [
        (150_000, 100_000, 1.495),
        (100_000, 150_000, 0.669),
        (45, 30, 1.015),
        (10**18, 100, 2.5),
        (0, 100_000, 0.5),
    ],
)
def test_a_long_prompt_corrects_more_than_a_short_one_within_bounds(
    counted: int, estimated: int, correction: float
) -> None:
    assert correction_by(LastCount(counted, estimated)) == correction


def test_without_a_count_nothing_is_corrected() -> None:
    assert correction_by(None) == 1.0


class Endpoint:
    """Answers each request with the next of its answers; an exception is raised."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    async def count_tokens(self, _: ModelRequest) -> object:
        """Return the next answer."""
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_plausible_counts_are_taken_each_time() -> None:
    counts = TokenCounts(Endpoint(90, 25, 400))

    assert [await counts.count(REQUEST, estimate=100) for _ in range(3)] == [90, 25, 400]


@pytest.mark.parametrize(
    "answer",
    [
        *(None, "100", True, 100.0, -1, 0, 24, 401, 10**18, {}),
        ModelCallError(FailureKind.UNREACHABLE, retryable=True),
        ModelCallError(FailureKind.REFUSED, retryable=False, status=404),
    ],
    ids=repr,
)
async def test_after_what_is_no_count_none_is_asked_for_a_while(answer: object) -> None:
    counts = TokenCounts(Endpoint(answer))

    assert [await counts.count(REQUEST, estimate=100) for _ in range(3)] == [None] * 3
