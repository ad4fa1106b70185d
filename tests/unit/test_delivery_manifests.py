"""Each policy of deploy/kubernetes, broken once, and what its schemas find."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.delivery.check import BUILD_ID, OVERLAYS, render
from tests.delivery.manifests import findings_in, name_of
from tests.delivery.schemas import schema_problems

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which renders the manifests, is not installed"
)

Objects = dict[str, dict[str, Any]]
Break = Callable[[Objects], object]

TURNS = f"Deployment/worker-turns-{BUILD_ID}"
SCALED = f"ScaledObject/worker-turns-{BUILD_ID}"


@pytest.fixture(scope="module")
def production() -> list[dict[str, Any]]:
    return render("production")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_keeps_all_policies_and_has_the_shape_of_its_kinds(overlay: str) -> None:
    objects = render(overlay)

    assert findings_in(objects) == []
    assert [list(schema_problems(each)) for each in objects] == [[] for _ in objects]


def pod(objects: Objects, name: str = TURNS) -> dict[str, Any]:
    spec: dict[str, Any] = objects[name]["spec"]["template"]["spec"]
    return spec


def container(objects: Objects, name: str = TURNS) -> dict[str, Any]:
    found: dict[str, Any] = pod(objects, name)["containers"][0]
    return found


def trigger(objects: Objects, number: int) -> dict[str, Any]:
    found: dict[str, Any] = objects[SCALED]["spec"]["triggers"][number]
    return found


def environment(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def settings(objects: Objects) -> dict[str, str]:
    (name,) = (name for name in objects if name.startswith("ConfigMap/"))
    data: dict[str, str] = objects[name]["data"]
    return data


BREAKS: list[tuple[Break, str]] = [
    (lambda o: container(o).update(image="everturn:1.2.3"), "is not pinned by digest"),
    (lambda o: pod(o).update(securityContext={}), "may run as root"),
    (lambda o: pod(o)["securityContext"].pop("seccompProfile"), "may make every system call"),
    (lambda o: container(o).pop("securityContext"), "can gain privileges"),
    (lambda o: container(o)["securityContext"].update(readOnlyRootFilesystem=False), "can write"),
    (lambda o: container(o)["securityContext"].pop("capabilities"), "keeps capabilities"),
    (lambda o: pod(o).pop("automountServiceAccountToken"), "holds a token"),
    (lambda o: container(o)["resources"].pop("requests"), "requests no CPU and memory"),
    (lambda o: container(o)["resources"].pop("limits"), "has no limit of memory"),
    (lambda o: container(o).pop("readinessProbe"), "has no readinessProbe"),
    (lambda o: o[TURNS]["spec"].pop("strategy"), "maxUnavailable must be 0"),
    (lambda o: pod(o).update(terminationGracePeriodSeconds=5), "is killed after 5 s"),
    (lambda o: container(o).update(args=["worker", "--tail", "turns"]), "which is no command"),
    (lambda o: container(o, "Deployment/api").update(env=[]), "set EVERTURN_DRAIN_S"),
    (lambda o: container(o).update(env=environment(EVERTURN_STEPS="1")), "sets EVERTURN_STEPS"),
    (
        lambda o: container(o).update(
            env=environment(BRAVE_API_KEY_FILE="/run/secrets/everturn/b")
        ),
        "names /run/secrets/everturn/b, which is not mounted",
    ),
    (lambda o: settings(o).update(EVERTURN_AUTH_SECRET="hush"), "is readable by everyone"),
    (lambda o: settings(o).update(EVERTURN_URL="x"), "sets EVERTURN_URL"),
    (lambda o: o[SCALED]["spec"].pop("minReplicaCount"), "scales to zero"),
    (lambda o: o[SCALED]["spec"]["triggers"].pop(), "must scale by the backlog"),
    (lambda o: trigger(o, 0)["metadata"].update(taskQueue="tools"), "taskQueue tools, not turns"),
    (lambda o: trigger(o, 0)["metadata"].pop("namespaceFromEnv"), "namespaceFromEnv None, not TEM"),
    (
        lambda o: trigger(o, 0)["metadata"].pop("workerDeploymentBuildId"),
        f"workerDeploymentBuildId None, not {BUILD_ID}",
    ),
    (lambda o: trigger(o, 1)["metadata"].update(query="sum(x)"), "the slots of other versions"),
    (lambda o: o.pop(TURNS), "nothing works on the queue turns"),
    (lambda o: o.pop(SCALED), "is scaled by nothing"),
    (lambda o: o.pop(f"PodDisruptionBudget/worker-turns-{BUILD_ID}"), "has no disruption budget"),
    (lambda o: o.pop(f"Job/migration-{BUILD_ID}"), "no job runs `everturn migrate`"),
    (lambda o: o.pop(f"Job/promotion-{BUILD_ID}"), "no job runs `everturn deployment promote`"),
    (lambda o: o.pop("NetworkPolicy/everturn"), "no network policy holds for every pod"),
    (lambda o: o["Service/api"]["metadata"].pop("labels"), "belongs to no phase"),
    (lambda o: o["Service/api"].update(kind="Secret"), "is a secret in the repository"),
]


@pytest.mark.parametrize(("break_it", "said"), BREAKS, ids=[said for _, said in BREAKS])
def test_a_broken_policy_is_found(
    production: list[dict[str, Any]], break_it: Break, said: str
) -> None:
    objects = {name_of(each): each for each in deepcopy(production)}

    break_it(objects)

    found = findings_in(list(objects.values()))
    assert [finding for finding in found if said in finding.problem]


MISSHAPEN: list[tuple[str, Break]] = [
    (TURNS, lambda o: o[TURNS]["spec"].update(replicas="two")),
    (TURNS, lambda o: container(o).update(livenessprobe={})),
    (SCALED, lambda o: trigger(o, 0)["metadata"].update(taskQueues="turns")),
    (SCALED, lambda o: trigger(o, 0)["metadata"].update(targetQueueSize=10)),
    (SCALED, lambda o: trigger(o, 1)["metadata"].pop("serverAddress")),
    (SCALED, lambda o: o[SCALED]["spec"].update(minReplicas=1)),
]


@pytest.mark.parametrize(("name", "break_it"), MISSHAPEN)
def test_an_object_of_another_shape_is_found(
    production: list[dict[str, Any]], name: str, break_it: Break
) -> None:
    objects = {name_of(each): each for each in deepcopy(production)}

    break_it(objects)

    assert list(schema_problems(objects[name]))
