"""Policies of docker-compose.yml that its schema can't express. Each names the outage it prevents.

Its shape is checked against the schema of the compose specification by `make check-delivery`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from schema.names import QUEUES
from services.settings import Settings
from tests.delivery.commands import is_command
from tests.delivery.images import is_pinned
from tests.delivery.settings import unknown_settings

Service = Mapping[str, Any]

_OURS: Final = "${EVERTURN_IMAGE:-everturn:local}"
_SECRET: Final = re.compile(r"(PASSWORD|SECRET|TOKEN|_KEYS?|PWD)$")
_WITHOUT_SHELL: Final = {"otel-collector"}
"""Services whose image holds nothing that could check their health."""


class Finding(NamedTuple):
    """A service that breaks a policy, and what it prevents."""

    service: str
    problem: str


def findings_in(compose: Mapping[str, Any], root: Path) -> list[Finding]:
    """Return what is wrong with a compose file whose anchors are resolved.

    `root` is the folder that its paths start from.
    """
    services: Mapping[str, Service] = compose["services"]
    found = [
        Finding(name, problem)
        for name, service in services.items()
        for policy in _POLICIES
        for problem in policy(name, service)
    ]
    found += [Finding("all", problem) for problem in _queues_without_a_worker(services)]
    found += [
        Finding(name, problem)
        for name, service in services.items()
        for problem in _missing_files(service, root)
    ]
    return found


def is_job(service: Service) -> bool:
    """Whether a service ends of its own accord."""
    return str(service.get("restart", "")).startswith("on-failure")


def is_ours(service: Service) -> bool:
    """Whether a service runs Everturn's image."""
    return str(service["image"]) == _OURS


def _image(_: str, service: Service) -> Iterator[str]:
    image = str(service["image"])
    if image != _OURS and not is_pinned(image):
        yield f"{image} is not pinned: tomorrow's stack would be another one"


def _health(name: str, service: Service) -> Iterator[str]:
    check = service.get("healthcheck")
    if is_job(service) or (name in _WITHOUT_SHELL and check == {"disable": True}):
        return
    if not check or "test" not in check:
        yield "has no health check: what depends on it starts too early"


def _limits(_: str, service: Service) -> Iterator[str]:
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    missing = sorted({"cpus", "memory", "pids"} - set(limits))
    if missing:
        yield f"has no limit of {', '.join(missing)}: it can take the others' share"


def _hardening(_: str, service: Service) -> Iterator[str]:
    if service.get("read_only") is not True:
        yield "can write to its root file system"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities that it doesn't need"
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        yield "can gain privileges"
    if service.get("privileged") or service.get("network_mode") == "host":
        yield "runs with the rights of the host"
    if "docker.sock" in str(service.get("volumes", "")):
        yield "can control Docker"


def _dependencies(_: str, service: Service) -> Iterator[str]:
    for other, how in _entries(service.get("depends_on", {})):
        if not isinstance(how, Mapping) or how.get("condition", "service_started").endswith(
            "started"
        ):
            yield f"waits for {other} to start, not to be healthy or done"


def _secrets(_: str, service: Service) -> Iterator[str]:
    for name, value in _entries(service.get("environment", {})):
        if _SECRET.search(name) and value:
            yield f"gets {name} through its environment, which `docker inspect` shows: use a file"
        if name.endswith("_FILE") and str(value).startswith("/run/secrets/"):
            secret = str(value).removeprefix("/run/secrets/")
            if secret not in service.get("secrets", ()):
                yield f"reads the secret {secret}, which it isn't given"


def _ports(name: str, service: Service) -> Iterator[str]:
    for port in service.get("ports", ()):
        host = re.sub(r"\$\{\w+:-(\d+)\}", r"\1", str(port)).split(":")
        if int(host[-2]) < 1024:
            yield f"publishes the privileged port {host[-2]}"
        if name != "proxy" and (len(host) < 3 or host[0] != "127.0.0.1"):
            yield f"publishes {port} beyond this machine"


def _grace(_: str, service: Service) -> Iterator[str]:
    command = service.get("command", ())
    if not is_ours(service) or not command or command[0] not in {"api", "worker"}:
        return
    grace = Settings.model_fields["shutdown_grace_s"].default
    given = int(str(service.get("stop_grace_period", "10s")).removesuffix("s"))
    if given <= grace:
        yield f"is killed after {given} s, within the {grace:g} s that its work may take to end"


def _command(_: str, service: Service) -> Iterator[str]:
    if is_ours(service) and not is_command(*service.get("command", ())):
        yield f"runs `everturn {' '.join(service.get('command', ()))}`, which is no command"


def _known_settings(_: str, service: Service) -> Iterator[str]:
    if is_ours(service):
        for name in unknown_settings(name for name, _ in _entries(service.get("environment", {}))):
            yield f"sets {name}, which Everturn doesn't read"


_POLICIES: Final[Sequence[Callable[[str, Service], Iterator[str]]]] = (
    _image,
    _health,
    _limits,
    _hardening,
    _dependencies,
    _secrets,
    _ports,
    _grace,
    _command,
    _known_settings,
)


def _queues_without_a_worker(services: Mapping[str, Service]) -> Iterator[str]:
    commands = [list(service.get("command", ())) for service in services.values()]
    for queue in QUEUES:
        if ["worker", "--queue", queue] not in commands:
            yield f"no service works on the queue {queue}"


def _missing_files(service: Service, root: Path) -> Iterator[str]:
    for volume in service.get("volumes", ()):
        source = str(volume).partition(":")[0]
        if source.startswith("./") and not (root / source).exists():
            yield f"mounts {source}, which doesn't exist"


def _entries(values: Mapping[str, Any] | Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield what a mapping holds, or a list of `NAME=value`, which compose allows as well."""
    if isinstance(values, Mapping):
        yield from values.items()
    else:
        for text in values:
            name, _, value = text.partition("=")
            yield name, value
