"""What is checked of the Dockerfile beside what hadolint finds."""

import pytest

from tests.delivery.check import ROOT, dockerfile_problems

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_image_keeps_all_policies() -> None:
    assert list(dockerfile_problems(DOCKERFILE)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("@sha256:", "@sha512:", "FROM ${PYTHON_IMAGE} is not pinned by digest"),
        ("FROM ${PYTHON_IMAGE}\n", "FROM python:3.13\n", "FROM python:3.13 is not pinned"),
        ("USER 10001:10001", "USER 0:0", "the image runs as root"),
        ("USER 10001:10001", "USER everturn", "the image runs as root, or as a user"),
        ("\nHEALTHCHECK ", "\n# ", "the image has no health check"),
        ("EVERTURN_API_HOST=", "EVERTURN_HOST=", "sets EVERTURN_HOST, which Everturn doesn't read"),
    ],
)
def test_a_broken_policy_is_found(old: str, new: str, said: str) -> None:
    assert old in DOCKERFILE

    problems = list(dockerfile_problems(DOCKERFILE.replace(old, new)))

    assert [problem for problem in problems if said in problem]
