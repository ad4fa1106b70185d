"""`everturn replay`: a line for each history that can't be followed, and an exit code."""

from pathlib import Path

import pytest

from services.settings import Settings
from tests.replay.broken_workflows import PreparesApart
from tests.replay.record import newest
from workers.replay import HistoryFileError, replay_histories
from workers.workflow_types import ALL_WORKFLOWS

SETTINGS = Settings(_env_file=None)


async def test_histories_that_are_followed_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    await replay_histories(SETTINGS, [newest("plain"), newest("one_tool")])

    assert capsys.readouterr().out == "All 2 histories can be followed by this version.\n"


async def test_each_history_that_cannot_be_followed_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shape in ("plain", "refresh_of_an_mcp_server"):
        (tmp_path / f"{shape}.json").write_text(newest(shape).read_text())
    others = [kind for kind in ALL_WORKFLOWS if kind.__name__ != "ChatTurn"]

    with pytest.raises(SystemExit) as ended:
        await replay_histories(SETTINGS, [tmp_path], workflows=[*others, PreparesApart])

    line, summary = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1
    assert line.startswith("ChatTurn plain: can't be followed: Nondeterminism error: ")
    assert line.endswith(f"({tmp_path / 'plain.json'})")
    assert summary == "1 of 2 histories can't be followed by this version."


async def test_an_unknown_type_of_workflow_cannot_be_followed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        await replay_histories(SETTINGS, [newest("plain")], workflows=ALL_WORKFLOWS[1:])

    assert capsys.readouterr().out.startswith(
        "ChatTurn plain: can't be followed: this version has no workflow of this type "
    )


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"events": []}', '{"events": [{"eventId": "1"}]}', "\x00"]
)
async def test_what_is_no_history_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "history.json"
    file.write_text(content)

    with pytest.raises(HistoryFileError, match=r"history\.json is not a workflow history"):
        await replay_histories(SETTINGS, [file])


async def test_a_folder_without_histories_is_named(tmp_path: Path) -> None:
    with pytest.raises(HistoryFileError, match="No histories at"):
        await replay_histories(SETTINGS, [tmp_path])
    with pytest.raises(HistoryFileError, match="No histories at"):
        await replay_histories(SETTINGS, [tmp_path / "missing"])
