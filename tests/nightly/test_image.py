"""The steps of the Dockerfile, run without Docker in an empty folder, and what they install.

The interpreter is that of the tests, and paths of the image lie below the folder. `.ci/image`
builds the image itself where buildah is installed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lock_freshness import pins_of

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = re.sub(r"#.*\n", "", (ROOT / "Dockerfile").read_text())
BUILD: Final = DOCKERFILE[DOCKERFILE.index("FROM ") : DOCKERFILE.rindex("FROM ")]
# It is installed twice.
pytestmark = pytest.mark.timeout(1200)

COMMIT_DATE: Final = 1_790_000_000


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """Return the folder that stands for the root of the image."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        yield Path(folder)


def build(root: Path) -> None:
    """Run the steps of the first stage, with all paths below `root`."""
    source = root / "src"
    copy_context(source)
    variables = dict(
        re.findall(r"\b([A-Z_]+)=(\S+)", BUILD[BUILD.index("ENV ") :].split("COPY")[0])
    )
    (command,) = re.findall(r"^RUN (.*?[^\\])$", BUILD, re.MULTILINE | re.DOTALL)
    python = Path(sys.base_prefix, "bin")
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace("/opt/", f"{root}/opt/")],
        cwd=source,
        env=os.environ
        | variables
        | {"PATH": f"{python}:{os.environ['PATH']}", "SOURCE_DATE_EPOCH": str(COMMIT_DATE)}
        # What a machine has fetched before is fetched by its hash, too.
        | {"UV_NO_CACHE": "false"},
        check=True,
    )


def copy_context(folder: Path) -> None:
    """Copy what .dockerignore lets through."""
    shutil.rmtree(folder, ignore_errors=True)
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source, target = ROOT / line[1:], folder / line[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)


def everturn(image: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the image in an empty folder, without the checkout in its path."""
    shutil.rmtree(image / "src")
    (image / "src").mkdir()
    return subprocess.run(
        [image / "opt/everturn/bin/everturn", *arguments],
        cwd=image / "src",
        env={"PATH": os.environ["PATH"]},
        check=False,
        capture_output=True,
        text=True,
    )


def packages(image: Path) -> Path:
    """Return the folder that packages are installed in."""
    (folder,) = (image / "opt/everturn/lib").glob("python3.*/site-packages")
    return folder


def test_everturn_runs_without_its_source(image: Path) -> None:
    ended = everturn(image, "--help")

    assert ended.returncode == 0, ended.stderr
    assert "A backend for AI chat" in ended.stdout


def test_the_image_holds_the_lock_and_nothing_else(image: Path) -> None:
    installed = {
        re.sub(r"[-_.]+", "-", folder.name.rpartition("-")[0]).lower()
        for folder in (each.with_suffix("") for each in packages(image).glob("*.dist-info"))
    }

    locked = pins_of((ROOT / "requirements" / "production.txt").read_text()).keys()
    assert installed == {*locked, "everturn", "everturn-client"}


def test_the_image_holds_every_migration(image: Path) -> None:
    folder = Path("schema", "migrations", "versions")

    in_image = {path.name for path in (packages(image) / folder).glob("*.py")}
    assert in_image == {path.name for path in (ROOT / folder).glob("*.py")}


def test_the_default_embedder_has_its_model(image: Path) -> None:
    script = (
        "from services.embeddings.embedded_model import MODEL_FILES; print(MODEL_FILES.is_dir())"
    )

    ended = subprocess.run(
        [image / "opt/everturn/bin/python", "-c", script],
        cwd=image,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "True\n"


def test_only_root_can_change_what_is_installed(image: Path) -> None:
    writable = 0o022
    loose = [path for path in (image / "opt").rglob("*") if not path.is_symlink()]

    assert [path for path in loose if path.stat().st_mode & writable] == []


def test_the_same_commit_gives_the_same_image(image: Path) -> None:
    first = digests(image)

    shutil.rmtree(image / "opt")
    build(image)

    assert digests(image) == first


def digests(image: Path) -> dict[str, str]:
    """Return what identifies each file of the environment: content, mode, date, target."""
    found = {}
    for path in sorted((image / "opt").rglob("*")):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        name = path.relative_to(image).as_posix()
        found[name] = f"{content} {status.st_mode:o} {status.st_mtime:.0f}"
    return found
