"""How `make bench` writes a run into docs/benchmarks.md."""

from pathlib import Path

import pytest

from tests.load.report import BENCHMARKS, Line, Report, history_row, write_into

FIRST = "first token, 1 turn at a time, p50"


def test_a_run_replaces_the_latest_and_heads_the_history(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    before = BENCHMARKS.read_text()
    page.write_text(before)
    report = Report([Line(name=FIRST, shape="workers apart", value=90, floor=50)])

    write_into(page, report)

    after = page.read_text()
    begun, rest = after.split("<!-- history:begin -->\n")
    heading, _, newest, second, *_ = rest.splitlines()
    assert begun == before.partition("<!-- history:begin -->")[0]
    assert heading.startswith("| date | commit | first token |")
    assert " | +40 |" in newest
    assert second in before
    assert report.markdown() in after
    assert after.count(FIRST) == 1


def test_the_history_keeps_the_figures_of_workers_apart() -> None:
    apart = Line(name=FIRST, shape="workers apart", value=90, floor=50)
    eager = Line(name=FIRST, shape="eager worker in the API", value=70, floor=50)

    row = history_row([apart, eager], when="2026-01-02", commit="abc")

    assert row == "| 2026-01-02 | abc | +40 |  |  |  |  |  |  |\n"


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n")

    with pytest.raises(ValueError, match="lacks the markers"):
        write_into(page, Report())
    assert page.read_text() == "# Benchmarks\n"
