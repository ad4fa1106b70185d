"""What `make load` runs, and its gates."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.load.load import Scenario, chosen_scenarios, judge, parse_arguments
from tests.load.report import Report
from tests.load.watching import Watched, judge_growth

SCENARIO = Scenario(classes=(), users=5, duration_s=1, gates={"GET chats": 100})


def missed(report: Report) -> list[str]:
    return [line.name for line in report.lines if line.is_met is False]


def judged(folder: Path, *samples: dict[str, object]) -> Report:
    file = folder / "samples.jsonl"
    file.write_text("".join(json.dumps({"at": 0.0, **sample}) + "\n" for sample in samples))
    report = Report()
    judge("api", SCENARIO, file, report)
    return report


def watched(memory_of_api: Callable[[int], float]) -> list[Watched]:
    """Samples of a soak in which nothing but the API's memory may grow."""
    flat = dict.fromkeys(
        (
            *(f"memory of {name}" for name in ("worker-turns", "worker-tools", "valkey")),
            *(f"connections of {name}" for name in ("api", "worker-turns", "worker-tools")),
            *("connections of postgres", "keys in valkey", "bytes in valkey", "unfinished turns"),
        ),
        50.0,
    )
    return [
        {**flat, "at": at, "turns": 10 * at, "rows": 80 * at, "memory of api": memory_of_api(at)}
        for at in range(200)
    ]


def test_quick_answers_meet_the_gates(tmp_path: Path) -> None:
    assert missed(judged(tmp_path, *[{"name": "GET chats", "ms": 20}] * 20)) == []


def test_a_slow_twentieth_misses_its_gate(tmp_path: Path) -> None:
    samples = [{"name": "GET chats", "ms": 20}] * 18 + [{"name": "GET chats", "ms": 900}] * 2
    assert missed(judged(tmp_path, *samples)) == ["GET chats, p95"]


def test_one_failure_fails_the_run_and_is_named(tmp_path: Path) -> None:
    failure = {"name": "GET turn", "ms": 5, "error": "503 unavailable"}
    report = judged(tmp_path, *[{"name": "GET chats", "ms": 20}] * 20, failure)
    assert missed(report) == ["failed"]
    assert "api failed: GET turn: 503 unavailable" in report.notes


def test_what_is_gated_but_never_happened_fails_the_run(tmp_path: Path) -> None:
    assert missed(judged(tmp_path, {"name": "GET turn", "ms": 5})) == ["failed"]


def test_a_flat_soak_passes() -> None:
    report = Report()
    judge_growth(watched(lambda _: 100.0), report)
    assert missed(report) == []


def test_a_leak_fails_the_soak() -> None:
    report = Report()
    judge_growth(watched(lambda at: 100.0 + at), report)
    assert missed(report) == ["memory of api at the end, for that after a third"]


def chosen(folder: Path, *words: str) -> dict[str, Scenario]:
    return chosen_scenarios(parse_arguments([*words, "--output", str(folder)]))


def test_a_soak_runs_against_a_url_only_if_it_is_named(tmp_path: Path) -> None:
    url = ("--url", "https://chat.example.com")
    assert list(chosen(tmp_path)) == ["api", "streams", "tools", "soak"]
    assert list(chosen(tmp_path, *url)) == ["api", "streams", "tools"]
    assert list(chosen(tmp_path, *url, "--scenarios", "soak")) == ["soak"]


def test_users_and_duration_replace_those_of_each_scenario(tmp_path: Path) -> None:
    scenarios = chosen(tmp_path, "--users", "3", "--duration", "7", "--scenarios", "api,tools")
    assert [(each.users, each.duration_s) for each in scenarios.values()] == [(3, 7), (3, 7)]


def test_an_unknown_scenario_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="unknown scenario: nonsense"):
        chosen(tmp_path, "--scenarios", "api,nonsense")
