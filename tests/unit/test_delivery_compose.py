"""Each policy of docker-compose.yml, broken once."""

import json
from copy import deepcopy
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.delivery.check import ROOT, load_compose
from tests.delivery.compose import findings_in
from tests.delivery.settings import unknown_settings
from workers.embedded.servers import DYNAMIC_CONFIG

COMPOSE = load_compose(ROOT / "docker-compose.yml")


def test_the_stack_keeps_all_policies() -> None:
    assert findings_in(COMPOSE, ROOT) == []


def test_the_demo_changes_how_workers_of_the_stack_start_and_nothing_else() -> None:
    demo = load_compose(ROOT / "docker-compose.demo.yml")["services"]

    assert demo.keys() == {name for name in COMPOSE["services"] if name.startswith("worker-")}
    for changed in demo.values():
        assert changed.keys() == {"entrypoint", "environment"}
        assert unknown_settings(changed["environment"]) == []


def test_temporal_is_configured_as_by_everturn_dev() -> None:
    config = YAML(typ="safe").load(ROOT / "deploy/compose/temporal-dynamic-config.yaml")

    expected = {key: [{"value": json.loads(value)}] for key, value in DYNAMIC_CONFIG.items()}
    assert config == expected


@pytest.mark.parametrize(
    ("service", "change", "said"),
    [
        ("valkey", {"image": "valkey/valkey"}, "is not pinned"),
        ("valkey", {"image": "valkey/valkey:latest"}, "is not pinned"),
        ("valkey", {"image": "valkey/valkey:9"}, "is not pinned"),
        ("api", {"healthcheck": {"disable": True}}, "has no health check"),
        ("api", {"deploy": {}}, "has no limit of cpus, memory, pids"),
        ("api", {"read_only": False}, "can write to its root file system"),
        ("api", {"cap_drop": []}, "keeps capabilities"),
        ("api", {"security_opt": []}, "can gain privileges"),
        ("api", {"network_mode": "host"}, "with the rights of the host"),
        ("api", {"volumes": ["/var/run/docker.sock:/docker.sock"]}, "can control Docker"),
        ("api", {"volumes": ["./nowhere:/x"]}, "mounts ./nowhere, which doesn't exist"),
        ("api", {"depends_on": ["postgres"]}, "waits for postgres to start"),
        ("api", {"depends_on": {"valkey": {"condition": "service_started"}}}, "waits for valkey"),
        ("api", {"environment": {"EVERTURN_AUTH_SECRET": "hush"}}, "which `docker inspect` shows"),
        ("api", {"environment": ["EVERTURN_AUTH_SECRET=hush"]}, "which `docker inspect` shows"),
        (
            "api",
            {"environment": {"BRAVE_API_KEY_FILE": "/run/secrets/brave"}},
            "reads the secret brave, which it isn't given",
        ),
        ("api", {"environment": {"EVERTURN_MAX_STEP": "3"}}, "which Everturn doesn't read"),
        ("api", {"ports": ["127.0.0.1:80:8000"]}, "publishes the privileged port 80"),
        ("grafana", {"ports": ["${PORT:-3000}:3000"]}, "beyond this machine"),
        ("worker-turns", {"stop_grace_period": "10s"}, "is killed after 10 s"),
        ("migrate", {"command": ["migrates"]}, "runs `everturn migrates`, which is no command"),
        ("promote", {"command": ["deployment", "promote", "--mvoe"]}, "which is no command"),
        ("worker-tools", {"command": ["worker", "--queue", "tolls"]}, "on the queue tools"),
    ],
)
def test_a_broken_policy_is_found(service: str, change: dict[str, Any], said: str) -> None:
    broken = deepcopy(COMPOSE)
    broken["services"][service] |= change

    assert [finding for finding in findings_in(broken, ROOT) if said in finding.problem]
