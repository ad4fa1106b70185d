"""Differences between the locks that `make check` finds."""

import pytest
from packaging.requirements import Requirement

from tests.lock_freshness import direct_problems, installer_problems, problems_of, unhashed

HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("installer", "problems"),
    [
        ("uv==1.2", []),
        ("uv==1.3", ["uv==1.3 is pinned but development.txt has 1.2"]),
        ("uv==1.2\nwheel==3", ["pins uv, wheel instead of uv alone"]),
        ("", ["pins nothing instead of uv alone"]),
    ],
)
def test_the_installer_is_the_uv_of_the_development_lock(
    installer: str, problems: list[str]
) -> None:
    assert installer_problems(installer, "ruff==1\nuv==1.2\n") == problems


def test_a_pin_without_a_hash_is_found() -> None:
    lock = f"anyio==4 \\\n    {HASH}\nclick==8 \\\n    {HASH}\n"

    assert unhashed(lock) == []
    assert unhashed(lock + "idna==3\n") == ["idna==3"]


def test_a_package_of_this_repository_is_not_pinned_but_what_it_requires_is() -> None:
    needed = [Requirement("everturn-client")]

    problems = problems_of("", needed, local={"everturn-client"})

    assert "httpx2 is not pinned but required by everturn-client" in problems
    assert not [problem for problem in problems if problem.startswith("everturn-client")]


def test_what_is_not_installed_here_must_still_be_pinned_as_required() -> None:
    needed = [Requirement("locust>=2.47"), Requirement("matplotlib>=3.11")]

    assert direct_problems("locust==2.47\nmatplotlib==3.12\n", needed) == []
    assert direct_problems("locust==2.46\n", needed) == [
        "locust is pinned at 2.46 but locust>=2.47 is required",
        "matplotlib is pinned at None but matplotlib>=3.11 is required",
    ]
