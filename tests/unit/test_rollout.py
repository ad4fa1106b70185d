"""The order in which deploy/rollout changes a cluster, and where it stops: with a false kubectl."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.delivery.check import BUILD_ID, IMAGE, ROOT

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(
    KUBECTL is None, reason="kubectl, which renders the manifests, is not installed"
)

# Renders with the real one; notes every other command, and answers it as the test wants.
FALSE_KUBECTL = """#!/usr/bin/env bash
case "$*" in
    kustomize*) exec "$REAL" "$@" ;;
esac
echo "$*" >>"$CALLS"
case "$*" in
    *wait*condition=complete*"job/$FAILING"*) exit 1 ;;
    *wait*condition=failed*"job/$FAILING"*) exit 0 ;;
    *"get deployments"*) printf 'older\\n%s\\n%s\\n' old "$BUILD_ID" ;;
    *"drained older"*) exit 0 ;;
    *"drained old"*) exit 3 ;;
esac
"""


def rollout(folder: Path, *arguments: str, failing: str = "none") -> tuple[int, list[str], str]:
    """Run the script; return its exit code, what it asked of the cluster, and what it said."""
    program, calls = folder / "kubectl", folder / "calls"
    program.write_text(FALSE_KUBECTL)
    program.chmod(0o755)
    calls.touch()
    variables = {"CALLS": str(calls), "FAILING": failing, "BUILD_ID": BUILD_ID}
    ended = subprocess.run(
        [ROOT / "deploy" / "rollout", *arguments],
        env=os.environ | variables | {"KUBECTL": str(program), "REAL": str(KUBECTL)},
        check=False,
        capture_output=True,
        text=True,
    )
    return ended.returncode, calls.read_text().splitlines(), ended.stderr


def phases(calls: list[str]) -> list[str]:
    """Return what was applied, promoted and deleted, in order."""
    return [call.rpartition("everturn.io/")[2] for call in calls if "everturn.io/" in call]


def test_a_release_is_applied_in_the_order_that_breaks_nothing(tmp_path: Path) -> None:
    code, calls, complaint = rollout(tmp_path, "production", IMAGE, BUILD_ID)

    assert (code, complaint) == (0, "")
    assert all("--namespace everturn-production" in call for call in calls)
    applied = [call for call in phases(calls) if call.startswith("phase=")]
    assert applied == [
        f"phase={phase}" for phase in ("settings", "migration", "workers", "api", "promotion")
    ]
    ready = next(n for n, call in enumerate(calls) if "rollout status" in call)
    assert f"deployment/worker-turns-{BUILD_ID}" in calls[ready]


def test_only_workers_that_no_turn_needs_are_deleted(tmp_path: Path) -> None:
    _, calls, _ = rollout(tmp_path, "production", IMAGE, BUILD_ID)

    deleted = [call for call in calls if " delete " in call]
    assert [call.rpartition(" ")[2] for call in deleted] == ["everturn.io/build-id=older"]


@pytest.mark.parametrize(
    ("failing", "applied"),
    [
        (f"migration-{BUILD_ID}", ["phase=settings", "phase=migration"]),
        (
            f"promotion-{BUILD_ID}",
            ["phase=settings", "phase=migration", "phase=workers", "phase=api", "phase=promotion"],
        ),
    ],
)
def test_nothing_is_changed_after_a_job_that_failed(
    tmp_path: Path, failing: str, applied: list[str]
) -> None:
    code, calls, complaint = rollout(tmp_path, "production", IMAGE, BUILD_ID, failing=failing)

    assert code == 1
    assert phases(calls) == applied
    assert complaint == f"The job {failing} did not complete; nothing after it was changed.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("production",), "usage: deploy/rollout"),
        (("moon", IMAGE, BUILD_ID), "There is no overlay moon"),
        (("production", "everturn:latest", BUILD_ID), "The image must be pinned by digest"),
        (("production", IMAGE, "Feature/1"), "A build ID has at most 30"),
    ],
)
def test_a_release_that_makes_no_sense_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, calls, complaint = rollout(tmp_path, *arguments)

    assert (code, calls) == (1, [])
    assert complaint.startswith(said)
