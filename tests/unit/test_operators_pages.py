"""The pages for operators name targets, commands, settings and tests that exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from services.settings import Settings, variable_of
from tests.delivery.commands import is_command

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = tuple(sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "SECURITY.md"]))
READINESS: Final = (DOCS / "production-readiness.md").read_text()
TARGETS: Final = frozenset(
    re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
)
COMMANDS: Final = re.findall(r"^\| [^`|]+ \| `([^`]+)` \|", READINESS, re.MULTILINE)
OF_TOOLS: Final = {
    *("EVERTURN_CA", "EVERTURN_EMAIL", "EVERTURN_PASSWORD"),
    *("EVERTURN_DOMAIN", "EVERTURN_HTTP_PORT", "EVERTURN_HTTPS_PORT", "EVERTURN_IMAGE"),
    *("EVERTURN_TRACES_ENDPOINT", "EVERTURN_TRACES_EXPORTER"),
}
"""Variables of the command line, the tests and the compose stack."""
OTHER_PROGRAMS: Final = ("curl", "grep", "promtool", "psql", "stat")


def everturn_commands(text: str) -> Iterator[str]:
    """Yield what stands as a command, on a line of its own or between backticks."""
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from re.findall(r"^\s*(everturn [^#\n\\>|&]+)", block, re.MULTILINE)
    yield from re.findall(r"`(everturn [^`]+)`", text)


def test_every_line_of_the_checklist_has_a_command() -> None:
    lines = re.findall(r"^\| (?!holds|-)(.+)", READINESS, re.MULTILINE)

    assert len(lines) > 35
    assert len(COMMANDS) == len([line for line in lines if not line.startswith("--")])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_checklist_can_be_run(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        assert {word for word in arguments if "=" not in word} <= TARGETS
    elif program == ".venv/bin/python":
        assert arguments[:2] == ["-m", "pytest"]
        assert [path for path in arguments[2:] if not (ROOT / path).exists()] == []
    elif program == "everturn":
        assert is_known(command)
    else:
        assert program in OTHER_PROGRAMS


def is_known(command: str) -> bool:
    """Whether a command exists with its options; what stands for values may be anything."""
    return is_command(*shlex.split(command)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_commands_that_exist(page: Path) -> None:
    named = sorted(set(everturn_commands(page.read_text())))

    assert [command for command in named if not is_known(command)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_make_targets_that_exist(page: Path) -> None:
    named = set(re.findall(r"`make ([a-z0-9-]+)", page.read_text()))

    assert named - TARGETS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_settings_that_exist(page: Path) -> None:
    settings = {variable_of(name) for name in Settings.model_fields}
    named = set(re.findall(r"\b(EVERTURN_[A-Z_]*[A-Z])\b", page.read_text()))

    assert {name.removesuffix("_FILE") for name in named} - settings - OF_TOOLS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]

    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_test_of_the_threat_model_exists() -> None:
    named = re.findall(r"`(\w+/test_\w+\.py)`", (DOCS / "threat-model.md").read_text())

    assert len(named) > 60
    assert [path for path in named if not (ROOT / "tests" / path).exists()] == []
