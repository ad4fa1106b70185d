"""The schemas of manifests: those of Kubernetes from a package, KEDA's in the part that we use.

KEDA's own schema accepts every metadata in a trigger, and so every misspelling; this one doesn't.
Source: https://keda.sh/docs/2.22/reference/scaledobject-spec/ and the pages of the two scalers.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from jsonschema_rs import Draft202012Validator

KUBERNETES_VERSION: Final = "1.34"
"""The oldest version of Kubernetes that deploy/kubernetes supports."""

_STRING: Final = {"type": "string", "minLength": 1}
_NUMBER_AS_TEXT: Final = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
_BOOLEAN_AS_TEXT: Final = {"enum": ["true", "false"]}
_COUNT: Final = {"type": "integer", "minimum": 0}


def _closed(required: Mapping[str, Any], optional: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that holds these properties and no other."""
    return {
        "type": "object",
        "required": sorted(required),
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


_TEMPORAL: Final = _closed(
    {
        "type": {"const": "temporal"},
        "metadata": _closed(
            {"taskQueue": _STRING, "targetQueueSize": _NUMBER_AS_TEXT},
            {
                **dict.fromkeys(
                    (
                        "endpoint",
                        "endpointFromEnv",
                        "namespace",
                        "namespaceFromEnv",
                        "queueTypes",
                        "tlsServerName",
                    ),
                    _STRING,
                ),
                **dict.fromkeys(("workerDeploymentName", "workerDeploymentBuildId"), _STRING),
                **dict.fromkeys(
                    ("activationTargetQueueSize", "minConnectTimeout"), _NUMBER_AS_TEXT
                ),
                "unsafeSsl": _BOOLEAN_AS_TEXT,
                "enableTLS": _BOOLEAN_AS_TEXT,
            },
        ),
    },
    {"name": _STRING, "authenticationRef": _closed({"name": _STRING}, {"kind": _STRING})},
)
_PROMETHEUS: Final = _closed(
    {
        "type": {"const": "prometheus"},
        "metadata": _closed(
            {"serverAddress": _STRING, "query": _STRING, "threshold": _NUMBER_AS_TEXT},
            {"activationThreshold": _NUMBER_AS_TEXT, "ignoreNullValues": _STRING},
        ),
    },
    {"name": _STRING, "metricType": {"enum": ["AverageValue", "Value"]}},
)
_SCALED_OBJECT: Final = _closed(
    {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": _closed(
            {
                "scaleTargetRef": _closed(
                    {"name": _STRING}, {"apiVersion": _STRING, "kind": _STRING}
                ),
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"oneOf": [_TEMPORAL, _PROMETHEUS]},
                },
            },
            {
                **dict.fromkeys(
                    ("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod"),
                    _COUNT,
                ),
                "fallback": _closed({"failureThreshold": _COUNT, "replicas": _COUNT}, {}),
                "advanced": {"type": "object"},
            },
        ),
    },
    {},
)
_KEDA: Final = Draft202012Validator(_SCALED_OBJECT)


def schema_problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each way in which an object doesn't have its kind's shape."""
    if manifest["apiVersion"].startswith("keda.sh/"):
        for error in _KEDA.iter_errors(manifest):
            place = ".".join(map(str, error.instance_path))
            yield f"{place}: {error.message}"
        return
    # Its dependencies compile dozens of grammars, which every process that collects tests would do.
    import kubernetes_validate  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        kubernetes_validate.validate(dict(manifest), KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(map(str, error.path))
        yield f"{place}: {error.message}"
