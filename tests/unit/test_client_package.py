"""The client as a package of its own: what its wheel holds and needs, and what it imports."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[2] / "clients" / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as the build backend builds it, with nothing fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_needs_an_http_client_and_pydantic_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())

    needs = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert {need.name for need in needs} == {"httpx2", "pydantic"}
    assert metadata["Name"] == "everturn-client"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "everturn-client" in metadata.get_payload()


def test_the_wheel_holds_the_package_its_types_and_its_licence_alone(
    wheel: zipfile.ZipFile,
) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert {name.partition("/")[0] for name in names} == {"everturn_client"}
    sources = {
        f"everturn_client/{path.name}" for path in (PROJECT / "everturn_client").glob("*.py")
    }
    assert names == sources | {"everturn_client/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_runs_without_the_repository(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    script = (
        "import sys, everturn_client\n"
        "print(everturn_client.__file__)\n"
        "ours = {'activities', 'api', 'schema', 'services', 'workers', 'workflows'}\n"
        "print(sorted(ours & {name.partition('.')[0] for name in sys.modules}))\n"
    )

    # Isolated: only the unpacked wheel and the installed libraries are on the path.
    ran = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{script}",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.stdout.splitlines() == [str(tmp_path / "everturn_client" / "__init__.py"), "[]"]
