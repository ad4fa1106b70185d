"""How `make bench` compares, when it stops, what it calls a regression, and what it writes."""

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.load.bench import QUICK, Bench
from tests.load.client import Connection, Request, Sample
from tests.load.comparison import (
    Comparison,
    Effort,
    Interval,
    interval_of,
    is_regression,
    percentile,
    thinned,
)
from tests.load.history import FOLDER, PAGE, history_table, write_into
from tests.load.machine import CpuTimes, process_trees
from tests.load.model import Play, play_of
from tests.load.report import BASE, FLOOR, OURS, Figure, Line, Report
from tests.load.stage import Batch, Ground

FIRST = "first token, 1 turn at a time, p50"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def batch(*whole_ms: float) -> Batch:
    samples = [Sample(200, 0.0, None, ms / 1000, "", completed=True) for ms in whole_ms]
    return Batch(samples, CpuTimes({}), CpuTimes({}))


def whole_ms(batches: Sequence[Batch]) -> float:
    return mean([sample.whole_ms for each in batches for sample in each.samples])


ADDED = Figure(name=FIRST, of=whole_ms, against="difference", target=50)


# The interval


def test_rounds_that_agree_have_a_narrow_interval_around_their_mean() -> None:
    interval = interval_of([10.0, 10.2, 9.9, 10.1], mean)
    assert interval.low < 10.05 < interval.high
    assert interval.is_narrow(share=0.05)


def test_rounds_that_differ_have_a_wide_one() -> None:
    interval = interval_of([5.0, 20.0, 9.0, 13.0], mean)
    assert not interval.is_narrow(share=0.05)


@pytest.mark.parametrize("rounds", [[10.0], [10.0, 10.0]])
def test_two_rounds_say_nothing_of_the_next(rounds: list[float]) -> None:
    assert interval_of(rounds, mean) == Interval(10.0, float("-inf"), float("inf"))


def test_the_same_rounds_have_the_same_interval() -> None:
    rounds = [3.0, 4.0, 7.0, 9.0]
    assert interval_of(rounds, mean) == interval_of(rounds, mean)


@pytest.mark.parametrize("count", [4, 10])
def test_nineteen_of_twenty_intervals_hold_the_truth(count: int) -> None:
    chance = random.Random(1)
    held = 0
    for _ in range(100):
        interval = interval_of([chance.gauss(100, 10) for _ in range(count)], mean)
        held += interval.low <= 100 <= interval.high
    assert 90 <= held <= 99


def test_what_slows_all_sides_alike_does_not_widen_a_ratio() -> None:
    slowed = (1.0, 1.7, 1.2, 2.1, 1.4)
    rounds = [{OURS: batch(300 * by), FLOOR: batch(100 * by)} for by in slowed]
    ratio = Figure(name="ratio", of=whole_ms, against="ratio")
    assert ratio.interval(rounds).value == pytest.approx(3)
    assert ratio.is_narrow(rounds)
    assert not Figure(name="alone", of=whole_ms).is_narrow(rounds)


def test_a_percentile_lies_between_the_values() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert percentile([1, 2], 1.0) == 2
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_thinning_keeps_the_ends_and_the_middle() -> None:
    assert thinned([5.0, 1.0], 10) == [1.0, 5.0]
    kept = thinned([float(number) for number in range(1001)], 101)
    assert (kept[0], kept[50], kept[-1], len(kept)) == (0, 500, 1000, 101)


# When it stops


class Recorder:
    """Two sides whose batches cost a second each of a clock of their own."""

    def __init__(self) -> None:
        self.measured: list[str] = []

    def sides(self) -> dict[str, Callable[[], Awaitable[float]]]:
        return {name: self._side(name) for name in (OURS, FLOOR)}

    def clock(self) -> float:
        return float(len(self.measured))

    def _side(self, name: str) -> Callable[[], Awaitable[float]]:
        async def measure() -> float:
            self.measured.append(name)
            return 1.0

        return measure


def never(_: Sequence[Mapping[str, float]]) -> bool:
    return False


async def rounds_of(
    effort: Effort, is_enough: Callable[[Sequence[Mapping[str, float]]], bool] = never
) -> tuple[int, list[str]]:
    recorder = Recorder()
    comparison = Comparison(recorder.sides(), effort, clock=recorder.clock)
    return len(await comparison.run(is_enough)), recorder.measured


async def test_it_stops_once_the_rounds_are_enough_but_not_before_the_least() -> None:
    number, _ = await rounds_of(Effort(least=3, most=9, within_s=99), lambda _: True)
    assert number == 3
    number, _ = await rounds_of(
        Effort(least=1, most=9, within_s=99), lambda rounds: len(rounds) > 4
    )
    assert number == 5


async def test_it_stops_at_the_most_rounds() -> None:
    assert (await rounds_of(Effort(least=1, most=4, within_s=99)))[0] == 4


async def test_it_stops_when_its_time_is_over() -> None:
    assert (await rounds_of(Effort(least=1, most=9, within_s=5)))[0] == 3


async def test_sides_take_turns_in_being_first() -> None:
    _, measured = await rounds_of(Effort(least=3, most=3, within_s=99))
    assert measured == [OURS, FLOOR, FLOOR, OURS, OURS, FLOOR]


# The verdicts


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "expected"),
    [
        (1.11, 1.30, False, True),
        (1.05, 1.30, False, False),  # it may be just half of that
        (0.70, 0.80, False, False),
        (0.70, 0.85, True, True),
        (0.70, 0.95, True, False),
        (1.11, 1.30, True, False),
    ],
)
def test_a_regression_is_worse_by_a_tenth_even_at_its_better_end(
    low: float, high: float, *, higher_is_better: bool, expected: bool
) -> None:
    ratio = Interval((low + high) / 2, low, high)
    assert is_regression(ratio, higher_is_better=higher_is_better) is expected


def test_what_is_added_to_the_floor_is_compared_with_what_the_base_added() -> None:
    rounds = [
        {OURS: batch(80 + by), FLOOR: batch(50 + by), BASE: batch(70 + by)} for by in (0, 1, 2, 3)
    ]
    line = ADDED.line(rounds, shape="workers apart")
    assert line.to_base is not None
    assert line.to_base.value == pytest.approx(1.5)
    assert line.is_regression
    assert Report([line]).regressions == [f"{FIRST}, workers apart"]
    assert "**regression**" in Report([line]).markdown()


def test_without_a_base_nothing_is_a_regression() -> None:
    rounds = [{OURS: batch(80), FLOOR: batch(50)}] * 3
    assert Report([ADDED.line(rounds)]).regressions == []


@pytest.mark.parametrize(("ours", "met"), [(99, True), (101, False)])
def test_a_target_bounds_what_is_added(ours: float, *, met: bool) -> None:
    line = ADDED.line([{OURS: batch(ours), FLOOR: batch(50)}] * 3)
    assert line.is_met is met
    assert ("**not met**" in line.cells()) is not met


def test_a_figure_whose_interval_stayed_wide_is_called_noisy() -> None:
    wide = [{OURS: batch(ours), FLOOR: batch(50)} for ours in (60, 90, 130)]
    narrow = [{OURS: batch(ours), FLOOR: batch(50)} for ours in (90, 90.5, 91)]
    assert "noisy" in " ".join(ADDED.line(wide).cells())
    assert "noisy" not in " ".join(ADDED.line(narrow).cells())


# The machine


def test_a_process_below_another_one_is_counted_once() -> None:
    trees = process_trees({"all": os.getppid(), "this": os.getpid()})
    assert os.getpid() in {process.pid for process in trees["this"]}
    assert os.getpid() not in {process.pid for process in trees["all"]}


def test_a_process_that_has_ended_is_left_out() -> None:
    assert process_trees({"gone": 2**22 + 1}) == {}


def test_what_a_process_used_that_began_in_between_counts_from_its_begin() -> None:
    before, after = CpuTimes({"api": 10.0}), CpuTimes({"api": 30.0, "worker": 5.0})
    assert after.since(before).per(5).by_name == {"api": 4.0, "worker": 1.0}


# The run


class UnusedGround(Ground):
    """Notes that something was left behind."""

    def __init__(self) -> None:
        self.started_over = 0

    async def start_over(self) -> None:
        self.started_over += 1


async def test_a_section_that_fails_does_not_lose_the_figures_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ground = UnusedGround()
    bench = Bench(ground, Path(), QUICK, ())

    async def fail() -> None:
        raise RuntimeError("broken")

    async def measure() -> None:
        bench.report.add(line(90))

    sections = {"start": measure, "growth": fail, "scale": measure}
    monkeypatch.setattr(bench, "_on_their_own", lambda: sections)
    await bench.measure(sections, ())
    assert bench.report.failures == ["growth: RuntimeError: broken"]
    assert [each.value for each in bench.report.lines] == [90, 90]
    assert ground.started_over == 1


# What is written


def line(value: float, shape: str = "workers apart") -> Line:
    return Line(name=FIRST, shape=shape, value=value, floor=50, against="difference")


def written(folder: Path, *reports: Report) -> str:
    page = folder / "benchmarks.md"
    page.write_text(PAGE.read_text())
    for number, report in enumerate(reports):
        write_into(page, folder, report, when=f"2026-01-0{number + 1}", commit=f"c{number}")
    return page.read_text()


def test_a_run_replaces_the_latest_and_heads_the_history(tmp_path: Path) -> None:
    first, second = Report([line(90)]), Report([line(81)])

    page = written(tmp_path, first, second)

    heading, _, newest, older = page.split("<!-- history:begin -->\n")[1].splitlines()[:4]
    assert heading.startswith("| date")
    assert "first token" in heading
    assert "c1" in newest
    assert "+31 " in newest
    assert "c0" in older
    assert "+40 " in older
    assert second.markdown() in page
    assert first.markdown() not in page
    kept = [json.loads(row) for row in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [entry["commit"] for entry in kept] == ["c0", "c1"]
    assert kept[0]["lines"][0]["value"] == 90


def test_the_history_shows_the_first_shape() -> None:
    lines = [line(90).as_json(), line(70, "eager worker in the API").as_json()]
    table = history_table([{"date": "d", "commit": "c", "workload": 2, "lines": lines}])
    assert "+40 " in table
    assert "+20 " not in table


def test_the_committed_history_is_the_one_on_the_page() -> None:
    rows = (FOLDER / "history.jsonl").read_text().splitlines()
    assert history_table([json.loads(row) for row in rows]) in PAGE.read_text()


def test_a_section_that_failed_is_named_on_the_page(tmp_path: Path) -> None:
    report = Report([line(90)], failures=["tools: RuntimeError: broken"])
    assert "- **Failed**: tools: RuntimeError: broken" in written(tmp_path, report)


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n")

    with pytest.raises(ValueError, match="lacks the markers"):
        write_into(page, tmp_path, Report(), when="", commit="")
    assert page.read_text() == "# Benchmarks\n"
    assert not (tmp_path / "history.jsonl").exists()


# The client and the model


class Sink(asyncio.StreamWriter):
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def __del__(self) -> None:
        pass


def request(text: str, *, system: str = "") -> dict[str, Any]:
    return {
        "model": "claude-haiku-5-5",
        "max_tokens": 100,
        "system": [{"type": "text", "text": system or "You are helpful."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
    }


def test_a_message_says_how_it_is_answered() -> None:
    play = Play(first_s=0.2, tokens=40, between_s=0.02, tool="calculator", hold="gate")
    assert play_of(request(play.message)) == play
    assert play_of(request("Say something plain.")) is None


def test_a_call_that_names_the_chat_is_not_answered_as_the_message_that_it_quotes() -> None:
    system = "You name conversations for a list of chats."
    assert play_of(request(f"<user>\n{Play().message}\n</user>", system=system)) is None


async def test_the_client_notes_an_end_that_comes_with_the_first_token() -> None:
    frames = b'event: delta\ndata: {"text":"1"}\n\nevent: done\ndata: {"status":"completed"}\n\n'
    reader = asyncio.StreamReader()
    reader.feed_data(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(frames), frames)
    )
    connection = Connection(reader, Sink())
    await connection.begin(Request(0, "/turns/1/events"))
    assert (await connection.until_first()).completed
    assert (await connection.finish()).completed
