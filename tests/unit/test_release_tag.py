"""What .ci/release-tag refuses to release, and the notes of what it doesn't."""

import subprocess
from pathlib import Path

import pytest

from tests.replay.record import keep

SCRIPT = Path(__file__).parents[2] / ".ci" / "release-tag"
CHANGELOG = """# Changelog

## [Unreleased]

## [1.10.0] - 2027-01-01

### Added

- Wings.

## [1.1.0] - 2026-12-01

- Legs.
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    release(tmp_path, "1.10.0")
    return tmp_path


def git(repository: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=repository, check=True)


def release(repository: Path, version: str, *, of_client: str = "", notes: str = CHANGELOG) -> None:
    """Commit a version."""
    client = repository / "clients" / "python"
    client.mkdir(parents=True, exist_ok=True)
    (repository / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    (client / "pyproject.toml").write_text(f'[project]\nversion = "{of_client or version}"\n')
    (repository / "CHANGELOG.md").write_text(notes)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", version)


def check(repository: Path, tag: str) -> tuple[int, str, str]:
    """Return the exit code of the script, its output, and what it complains of."""
    ended = subprocess.run(
        [SCRIPT, tag, "main"], cwd=repository, check=False, capture_output=True, text=True
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_a_version_on_main_is_released_with_its_section_of_the_changelog(repository: Path) -> None:
    git(repository, "tag", "v1.10.0")

    assert check(repository, "v1.10.0") == (0, "### Added\n\n- Wings.\n", "")


@pytest.mark.parametrize("tag", ["v1", "v1.2", "1.2.3", "v1.2.3.4", "v01.2.3", "v1.2.x", "vital"])
def test_a_tag_that_is_not_a_semantic_version_is_refused(repository: Path, tag: str) -> None:
    git(repository, "tag", tag)

    code, output, complaint = check(repository, tag)

    assert (code, output) == (1, "")
    assert complaint == (
        f"{tag} is not a release: a tag is v and a semantic version, e.g. v1.4.0.\n"
    )


def test_a_tag_that_does_not_exist_is_refused(repository: Path) -> None:
    assert check(repository, "v2.0.0")[2].startswith("There is no tag v2.0.0. ")


def test_a_tag_beside_main_is_refused(repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create", "feature")
    release(repository, "1.10.0", notes=CHANGELOG + "\n")
    git(repository, "tag", "v1.10.0")

    assert check(repository, "v1.10.0")[2].startswith("v1.10.0 is not on main: ")


@pytest.mark.parametrize(
    ("version", "of_client", "file"),
    [
        ("1.9.0", "1.10.0", "pyproject.toml"),
        ("1.10.0", "1.9.0", "clients/python/pyproject.toml"),
    ],
)
def test_a_tag_of_another_version_is_refused(
    repository: Path, version: str, of_client: str, file: str
) -> None:
    release(repository, version, of_client=of_client)
    git(repository, "tag", "v1.10.0")

    assert check(repository, "v1.10.0")[2] == (
        f"{file} says version 1.9.0, but the tag is v1.10.0.\n"
    )


def test_a_version_without_notes_is_refused(repository: Path) -> None:
    release(repository, "1.11.0", notes=CHANGELOG)
    git(repository, "tag", "v1.11.0")

    assert 'has nothing under "## [1.11.0]"' in check(repository, "v1.11.0")[2]


def test_a_version_whose_recordings_are_not_kept_is_refused(repository: Path) -> None:
    histories = repository / "tests" / "replay" / "histories"
    (histories / "unreleased").mkdir(parents=True)
    (histories / "unreleased" / "plain.json").write_text("{}")
    release(repository, "1.10.0", notes=CHANGELOG + "\n")
    git(repository, "tag", "v1.10.0")
    refused = check(repository, "v1.10.0")

    keep("1.10.0", histories)
    release(repository, "1.10.0", notes=CHANGELOG)
    git(repository, "tag", "--force", "v1.10.0")

    assert refused[:2] == (1, "")
    assert refused[2].endswith("v1.10.0: python -m tests.replay.record --release 1.10.0\n")
    assert check(repository, "v1.10.0")[0] == 0
    assert [file.name for file in (histories / "1.10.0").iterdir()] == ["plain.json"]


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("../elsewhere", "is not a version"),
        ("1.9.0", "has its recordings already"),
        ("1.10.0", "Nothing was recorded"),
    ],
)
def test_recordings_are_kept_once_and_under_a_version(
    tmp_path: Path, version: str, said: str
) -> None:
    (tmp_path / "1.9.0").mkdir()

    with pytest.raises(SystemExit, match=said):
        keep(version, tmp_path)
