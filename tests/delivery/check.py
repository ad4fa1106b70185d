"""Checks what ships against its schemas and policies: `make check-delivery`."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.delivery import compose, manifests
from tests.delivery.images import is_pinned_by_digest
from tests.delivery.schemas import schema_problems
from tests.delivery.settings import unknown_settings

ROOT: Final = Path(__file__).parents[2]
OVERLAYS: Final = ("preview", "production")
IMAGE: Final = f"registry.example/everturn@sha256:{'0' * 64}"
BUILD_ID: Final = "4f2c9d1ab7e0"


def render(overlay: str, *, image: str = IMAGE, build_id: str = BUILD_ID) -> list[dict[str, Any]]:
    """Return the objects of a release, as deploy/rollout would apply them."""
    rendered = subprocess.run(
        [ROOT / "deploy" / "rollout", overlay, image, build_id, "--render"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [document for document in yaml.safe_load_all(rendered) if document]


def load_compose(path: Path) -> dict[str, Any]:
    """Return a compose file with its anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def dockerfile_problems(text: str) -> Iterator[str]:
    """Yield what is wrong with a Dockerfile and no linter finds."""
    instructions = re.sub(r"\\\n", " ", text)
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", instructions, re.MULTILINE))
    stages = re.findall(r"^FROM (\S+)", instructions, re.MULTILINE)
    for stage in stages:
        image = re.sub(r"\$\{(\w+)\}", lambda found: str(arguments.get(found[1], "")), stage)
        if not is_pinned_by_digest(image):
            yield f"FROM {stage} is not pinned by digest: builds of one commit may differ"
    last = instructions[instructions.rindex("\nFROM ") :]
    if not re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE):
        yield "the image runs as root, or as a user whose number Kubernetes can't check"
    if "\nHEALTHCHECK " not in last:
        yield "the image has no health check"
    set_here = re.findall(r"\b(EVERTURN_\w+)=", last)
    for name in unknown_settings(set_here):
        yield f"the image sets {name}, which Everturn doesn't read"


def _problems() -> Iterator[str]:
    for problem in dockerfile_problems((ROOT / "Dockerfile").read_text()):
        yield f"Dockerfile: {problem}."
    for service, problem in compose.findings_in(load_compose(ROOT / "docker-compose.yml"), ROOT):
        yield f"docker-compose.yml: {service}: {problem}."
    if shutil.which("kubectl") is None:
        said = "deploy/kubernetes can't be checked: kubectl is not installed."
        if os.environ.get("GITHUB_ACTIONS"):
            yield said
        else:
            print(said)
        return
    for overlay in OVERLAYS:
        objects = render(overlay)
        for manifest in objects:
            for problem in schema_problems(manifest):
                yield f"{overlay}: {manifests.name_of(manifest)}: {problem}"
        for name, problem in manifests.findings_in(objects):
            yield f"{overlay}: {name}: {problem}."


def main() -> int:
    """Print every problem; return 1 if there is one."""
    found = list(_problems())
    print("\n".join(found) if found else "delivery: all policies kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
