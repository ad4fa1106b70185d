"""Removes from a history what belongs to one run on one machine.

What a workflow decides by stays: types, names, order, results. Ids become the numbers of their
first appearance, times become a count of seconds, processes become `worker`: to record again
changes a file only where the workflow changed.
"""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from temporalio.client import WorkflowHistory

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_COMPACT_TIME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_SECONDS: Final = re.compile(r'"seconds":\d+,"nanos":\d+')
_PROCESS: Final = re.compile(r"\d+@[\w.-]+")
_BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
_DROPPED: Final = frozenset(
    {"stackTrace", "taskId", "requestId", "historySizeBytes", "workerVersion", "binaryChecksum"}
)


def sanitised(history: WorkflowHistory) -> dict[str, Any]:
    """Return the history as JSON to keep."""
    cleaned: dict[str, Any] = _Sanitising().cleaned(json.loads(history.to_json()))
    for event in cleaned["events"]:
        event["eventTime"] = _written(_BEGINNING + timedelta(seconds=int(event["eventId"])))
    return cleaned


class _Sanitising:
    """The replacements in one history so far."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def cleaned(self, value: Any) -> Any:  # noqa: ANN401 -- any JSON
        if isinstance(value, dict) and value.keys() == {"metadata", "data"}:
            metadata = dict(sorted(value["metadata"].items()))
            return {"metadata": metadata, "data": self._payload(value["data"])}
        if isinstance(value, dict):
            kept = sorted(value.keys() - _DROPPED)  # maps of protobuf come in any order
            return {key: self.cleaned(value[key]) for key in kept}
        if isinstance(value, list):
            cleaned = [self.cleaned(item) for item in value]
            return sorted(cleaned) if all(isinstance(item, int) for item in cleaned) else cleaned
        return self._text(value) if isinstance(value, str) else value

    def _payload(self, data: str) -> str:
        return base64.b64encode(self._text(base64.b64decode(data).decode()).encode()).decode()

    def _text(self, text: str) -> str:
        text = _UUID.sub(lambda found: self._numbered(found.group()), text)
        text = _TIME.sub(_written(_BEGINNING), text)
        text = _COMPACT_TIME.sub(f"{_BEGINNING:%Y%m%dT%H%M%S.%fZ}", text)
        text = _SECONDS.sub(f'"seconds":{int(_BEGINNING.timestamp())},"nanos":0', text)
        return _PROCESS.sub("worker", text)

    def _numbered(self, found: str) -> str:
        return self._ids.setdefault(found, f"00000000-0000-7000-8000-{len(self._ids) + 1:012}")


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
