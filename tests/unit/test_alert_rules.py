"""The alerts: rules that Prometheus takes, each tested, each with a section in the runbook."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.fixtures.prometheus import RULES, promtool, rules

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "runbook.md"
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


def test_the_prometheus_operator_gets_the_same_alerts_and_the_jobs_that_they_expect(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    [block] = re.findall(r"^```sh\n([^`]*PrometheusRule[^`]*)^```", page, re.MULTILINE)
    # Shows what it is to apply.
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\ncat "$5"\necho ---\n')
    kubectl.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    applied = subprocess.check_output(["bash", "-euc", block], cwd=ROOT, env=environment, text=True)

    api, worker, alerts, _ = yaml.safe_load_all(applied)
    assert alerts["kind"] == "PrometheusRule"
    assert alerts["spec"] == yaml.safe_load(RULES.read_text())
    assert (job_of(api, "api.yaml"), job_of(worker, "versioned/worker/worker.yaml")) == (
        "everturn-api",
        "everturn-worker",
    )


def job_of(monitor: dict[str, Any], deployment: str) -> str:
    """Return the name of the job of a monitor, which finds the pods of a deployment."""
    text = (ROOT / "deploy/kubernetes/base" / deployment).read_text()
    pods = next(yaml.safe_load_all(text))["spec"]["template"]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
    assert endpoint["port"] in [port["name"] for port in pods["spec"]["containers"][0]["ports"]]
    job: str = endpoint["relabelings"][0]["replacement"]
    return job
