"""The alerts: rules that Prometheus takes, each tested, each with a section in the runbook."""

import re
from pathlib import Path

import yaml

from tests.fixtures.prometheus import RULES, promtool, rules

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
TESTS = Path(__file__).with_name("alert_rules.yml")


def test_prometheus_takes_the_rules() -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))

    assert f"{len(rules())} rules found" in checked


def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))


def test_every_alert_is_tested_to_fire_and_to_stay_silent() -> None:
    tests = yaml.safe_load(TESTS.read_text())["tests"]
    expected = {
        (case["alertname"], bool(case.get("exp_alerts")))
        for test in tests
        for case in test["alert_rule_test"]
    }

    assert expected == {(rule["alert"], fires) for rule in rules() for fires in (True, False)}


def test_every_alert_has_a_section_in_the_runbook_and_no_section_is_left_over() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)

    assert sections == [rule["alert"] for rule in rules()]
    assert [rule["annotations"]["runbook"] for rule in rules()] == [
        f"docs/runbook.md#{rule['alert'].lower()}" for rule in rules()
    ]


def test_every_section_says_what_it_means_where_to_look_and_what_to_do() -> None:
    _, *sections = re.split(r"^## \w+$", RUNBOOK.read_text(), flags=re.MULTILINE)
    parts = [re.findall(r"^\*\*(.+?)\.\*\*", section, re.MULTILINE) for section in sections]

    assert parts == [["Meaning", "First look", "What to do"]] * len(rules())
