"""Small values that fit a JSON schema, as far as a demo needs them."""

import re
from typing import Any

_TOLD = re.compile(r"\b(minimum|maximum|minLength|maxLength|minItems): (\d{1,6})\b")
_DEEPEST = 20
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T09:00:00Z",
    "time": "09:00:00Z",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example_of(schema: dict[str, Any], *, text: str) -> Any:  # noqa: ANN401 -- any JSON
    """Return a value that fits a plain schema; `text` is what its strings say."""
    return _Examples(schema, text).of(schema)


class _Examples:
    def __init__(self, root: dict[str, Any], text: str) -> None:
        self._root, self._text = root, text

    def of(self, part: Any, depth: int = 0) -> Any:  # noqa: ANN401 -- any JSON
        if not isinstance(part, dict) or depth > _DEEPEST:
            return None
        # What a provider's schemas can't express is told in the description.
        told = _TOLD.findall(str(part.get("description", "")))
        part = {**{name: int(number) for name, number in told}, **part}
        if isinstance(reference := part.get("$ref"), str):
            return self.of(self._part_at(reference), depth + 1)
        for keyword in ("const", "default"):
            if keyword in part:
                return part[keyword]
        if part.get("enum"):
            return part["enum"][0]
        for keyword in ("anyOf", "oneOf", "allOf"):
            if isinstance(part.get(keyword), list) and part[keyword]:
                return self.of({**part, **part[keyword][0], keyword: None}, depth + 1)
        return self._of_type(part, depth)

    def _of_type(self, part: dict[str, Any], depth: int) -> Any:  # noqa: ANN401 -- any JSON
        kind = part.get("type", "object" if "properties" in part else "string")
        match kind[0] if isinstance(kind, list) and kind else kind:
            case "object":
                inner = part.get("properties") or {}
                return {name: self.of(value, depth + 1) for name, value in inner.items()}
            case "array":
                count = max(1, part.get("minItems", 1))
                return [self.of(part.get("items"), depth + 1) for _ in range(min(count, 10))]
            case "integer" | "number":
                return max(part.get("minimum", 1), min(1, part.get("maximum", 1)))
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(part)

    def _string(self, part: dict[str, Any]) -> str:
        text = _FORMATS.get(part.get("format", ""), self._text)
        return text.ljust(part.get("minLength", 0), ".")[: part.get("maxLength", len(text) + 200)]

    def _part_at(self, reference: str) -> Any:  # noqa: ANN401 -- any JSON
        part: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            part = part.get(step) if isinstance(part, dict) else None
        return part
