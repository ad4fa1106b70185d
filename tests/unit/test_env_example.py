"""`.env.example` lists every setting, each with its default and a line that explains it."""

import re
from pathlib import Path

import pytest

from services.settings import Settings, variable_of

TEXT = (Path(__file__).parents[2] / ".env.example").read_text()
LISTED = dict(re.findall(r"^# ?([A-Z0-9_]+)=(.*)$", TEXT, re.MULTILINE))


VARIABLES = {variable_of(field): field for field in Settings.model_fields}


def test_every_setting_is_listed() -> None:
    assert sorted(VARIABLES.keys() - LISTED.keys()) == []


def test_only_settings_are_listed() -> None:
    assert sorted(LISTED.keys() - VARIABLES.keys()) == []


def test_the_values_listed_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    defaults = Settings(_env_file=None)
    for variable, value in LISTED.items():
        if value:
            monkeypatch.setenv(variable, value)

    assert Settings(_env_file=None) == defaults


def test_defaults_are_listed() -> None:
    without = {variable for variable, value in LISTED.items() if not value}

    assert without == {
        variable
        for variable, field in VARIABLES.items()
        if Settings.model_fields[field].get_default(call_default_factory=True) is None
    }


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_a_setting_is_explained(variable: str) -> None:
    lines = TEXT.splitlines()
    place = next(i for i, line in enumerate(lines) if re.match(rf"# ?{variable}=", line))

    assert re.match(r"# [A-Z]", lines[place - 1])
    assert "=" not in lines[place - 1].split()[1]
