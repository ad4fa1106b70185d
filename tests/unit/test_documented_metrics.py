"""docs/observability.md lists every metric with its labels, and nothing else."""

import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from api.metrics import ApiMetrics
from services.settings import Settings
from workers.metrics import ProcessHealth
from workers.process_metrics import process_metrics
from workers.worker import make_worker

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
DOCUMENTED = {
    name: tuple(re.findall(r"`(\w+)`", labels))
    for name, labels in re.findall(r"^\| `(everturn_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
}


def defined(registries: Iterable[CollectorRegistry]) -> dict[str, tuple[str, ...]]:
    """Return the labels of each metric of ours, by its name on the wire."""
    collectors = [each for registry in registries for each in registry._collector_to_names]
    return {
        each._name + ("_total" if each._type == "counter" else ""): tuple(each._labelnames)
        for each in collectors
        if isinstance(each, MetricWrapperBase) and each._name.startswith("everturn_")
    }


def test_every_metric_is_listed_with_its_labels() -> None:
    assert callable(make_worker), "with it come all modules that count"
    api = ApiMetrics()
    with process_metrics(Settings(_env_file=None, metrics_port=1), ProcessHealth(), api.registry):
        assert defined((REGISTRY, api.registry)) == DOCUMENTED
