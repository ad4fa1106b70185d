"""Policies of the manifests in deploy/kubernetes, each with the outage that it prevents.

Their shape is checked against the schemas of Kubernetes and KEDA by `tests.delivery.check`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from schema.names import DEPLOYMENT, QUEUES
from services.settings import Settings
from tests.delivery.commands import is_command
from tests.delivery.images import is_pinned_by_digest
from tests.delivery.settings import unknown_settings

Manifest = Mapping[str, Any]

_SECRETS: Final = "/run/secrets/everturn/"
_AFTER_GRACE_S: Final = 10
"""What a process needs to close its connections after its grace."""


class Finding(NamedTuple):
    """An object that breaks a policy, and what it prevents."""

    object: str
    problem: str


def findings_in(manifests: Sequence[Manifest]) -> list[Finding]:
    """Return what is wrong with all objects of an installation."""
    found = [
        Finding(name_of(manifest), problem)
        for manifest in manifests
        for policy in _POLICIES
        for problem in policy(manifest)
    ]
    return found + [Finding("all", problem) for problem in _missing(manifests)]


def name_of(manifest: Manifest) -> str:
    """Return the kind and the name of an object."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def _containers(manifest: Manifest) -> Iterator[Manifest]:
    if manifest["kind"] in {"Deployment", "Job"}:
        yield from manifest["spec"]["template"]["spec"]["containers"]


def _image(manifest: Manifest) -> Iterator[str]:
    for container in _containers(manifest):
        if not is_pinned_by_digest(container["image"]):
            yield f"{container['image']} is not pinned by digest: its pods may run different code"


def _security(manifest: Manifest) -> Iterator[str]:
    for container in _containers(manifest):
        of_pod = manifest["spec"]["template"]["spec"].get("securityContext", {})
        own = container.get("securityContext", {})
        if of_pod.get("runAsNonRoot") is not True or not of_pod.get("runAsUser"):
            yield "may run as root"
        if of_pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "may make every system call"
        if own.get("allowPrivilegeEscalation") is not False:
            yield "can gain privileges"
        if own.get("readOnlyRootFilesystem") is not True:
            yield "can write to its root file system"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield "keeps capabilities that it doesn't need"
        if manifest["spec"]["template"]["spec"].get("automountServiceAccountToken") is not False:
            yield "holds a token for the cluster's API"


def _resources(manifest: Manifest) -> Iterator[str]:
    for container in _containers(manifest):
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})):
            yield "requests no CPU and memory: a full node may get it"
        if "memory" not in resources.get("limits", {}):
            yield "has no limit of memory: it can take the node's"


def _probes(manifest: Manifest) -> Iterator[str]:
    if manifest["kind"] == "Deployment":
        for container in _containers(manifest):
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe not in container:
                    yield f"has no {probe}"


def _rolling_update(manifest: Manifest) -> Iterator[str]:
    if manifest["kind"] == "Deployment":
        update = manifest["spec"].get("strategy", {}).get("rollingUpdate", {})
        if update.get("maxUnavailable") != 0:
            yield "ends an old pod before a new one is ready: maxUnavailable must be 0"


def _termination(manifest: Manifest) -> Iterator[str]:
    if manifest["kind"] != "Deployment":
        return
    grace = Settings.model_fields["shutdown_grace_s"].default
    drain = 0
    for container in _containers(manifest):
        if container["args"][0] == "api":
            drain = int(environment_of(container).get("EVERTURN_DRAIN_S") or 0)
            grace *= 2
            if not drain:
                yield "is asked for after it has ended: set EVERTURN_DRAIN_S"
    needed = grace + drain + _AFTER_GRACE_S
    given = manifest["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
    if given < needed:
        yield f"is killed after {given} s, but may take {needed:g} s to end"


def _command(manifest: Manifest) -> Iterator[str]:
    for container in _containers(manifest):
        if not is_command(*container["args"]):
            yield f"runs `everturn {' '.join(container['args'])}`, which is no command"


def _settings(manifest: Manifest) -> Iterator[str]:
    names: set[str] = set()
    for container in _containers(manifest):
        names |= environment_of(container).keys()
        given = {
            _SECRETS + item["path"]
            for volume in manifest["spec"]["template"]["spec"]["volumes"]
            for item in volume.get("secret", {}).get("items", ())
        }
        for name, value in environment_of(container).items():
            if str(value).startswith(_SECRETS) and value not in given:
                yield f"{name} names {value}, which is not mounted"
    if manifest["kind"] == "ConfigMap":
        names = set(manifest["data"])
    for name in unknown_settings(names):
        yield f"sets {name}, which Everturn doesn't read"


def _scaling(manifest: Manifest) -> Iterator[str]:
    if manifest["kind"] != "ScaledObject":
        return
    spec = manifest["spec"]
    if spec.get("minReplicaCount", 0) < 1:
        yield "scales to zero: the next turn waits for a pod"
    triggers = {trigger["type"]: trigger["metadata"] for trigger in spec["triggers"]}
    if triggers.keys() != {"temporal", "prometheus"}:
        yield "must scale by the backlog (temporal) and by the slots in use (prometheus)"
        return
    labels = manifest["metadata"]["labels"]
    build_id, queue = labels["everturn.io/build-id"], labels["everturn.io/queue"]
    backlog = triggers["temporal"]
    expected = {
        "endpointFromEnv": "TEMPORAL_ADDRESS",
        "namespaceFromEnv": "TEMPORAL_NAMESPACE",
        "taskQueue": queue,
        "workerDeploymentName": DEPLOYMENT,
        "workerDeploymentBuildId": build_id,
    }
    for name, value in expected.items():
        if backlog.get(name) != value:
            yield f"scales by the backlog of {name} {backlog.get(name)}, not {value}"
    if f'pod=~"worker-{queue}-{build_id}-' not in triggers["prometheus"]["query"]:
        yield "scales by the slots of other versions or queues"


def _no_secrets(manifest: Manifest) -> Iterator[str]:
    if manifest["kind"] == "Secret":
        yield "is a secret in the repository"
    if manifest["kind"] == "ConfigMap":
        for name in manifest["data"]:
            if re.search(r"(PASSWORD|SECRET|TOKEN|_KEYS?)$", name):
                yield f"{name} is readable by everyone who may read settings"


_POLICIES: Final[Sequence[Callable[[Manifest], Iterator[str]]]] = (
    _image,
    _security,
    _resources,
    _probes,
    _rolling_update,
    _termination,
    _command,
    _settings,
    _scaling,
    _no_secrets,
)


def environment_of(container: Manifest) -> dict[str, Any]:
    """Return the variables that a container sets itself; None for those that are looked up."""
    return {entry["name"]: entry.get("value") for entry in container.get("env", ())}


def _missing(manifests: Sequence[Manifest]) -> Iterator[str]:
    yield from _missing_work(manifests)
    yield from _missing_companions(manifests)
    if not any(_isolates_all(each) for each in manifests):
        yield "no network policy holds for every pod"
    for manifest in manifests:
        if manifest["metadata"].get("labels", {}).get("everturn.io/phase") not in PHASES:
            yield f"{name_of(manifest)} belongs to no phase: deploy/rollout never applies it"


def _missing_work(manifests: Sequence[Manifest]) -> Iterator[str]:
    commands = [list(each["args"]) for manifest in manifests for each in _containers(manifest)]
    for queue in QUEUES:
        if ["worker", "--queue", queue] not in commands:
            yield f"nothing works on the queue {queue}"
    for needed in (["migrate"], ["deployment", "promote"]):
        if needed not in [command[: len(needed)] for command in commands]:
            yield f"no job runs `everturn {' '.join(needed)}`"


def _missing_companions(manifests: Sequence[Manifest]) -> Iterator[str]:
    scaled = [
        each["spec"]["scaleTargetRef"]["name"]
        for each in manifests
        if each["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}
    ]
    budgets = [
        each["spec"]["selector"]["matchLabels"]
        for each in manifests
        if each["kind"] == "PodDisruptionBudget"
    ]
    for deployment in manifests:
        if deployment["kind"] != "Deployment":
            continue
        name, labels = name_of(deployment), deployment["spec"]["selector"]["matchLabels"]
        if deployment["metadata"]["name"] not in scaled:
            yield f"{name} is scaled by nothing"
        if labels not in budgets:
            yield f"{name} has no disruption budget: draining nodes may end all of its pods"


PHASES: Final = ("settings", "migration", "workers", "api", "promotion")


def _isolates_all(manifest: Manifest) -> bool:
    return (
        manifest["kind"] == "NetworkPolicy"
        and manifest["spec"]["podSelector"].get("matchLabels", {}).keys()
        <= {"app.kubernetes.io/name"}
        and set(manifest["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    )
