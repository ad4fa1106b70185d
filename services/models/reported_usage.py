"""What an answer used, by what the provider reports of it and what is believable."""

import re
from typing import Any, Final

from schema.usage import TokenUsage

_INPUT: Final = {
    "input_tokens": "input_tokens",
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
}
_OUTPUT: Final = "output_tokens"

# More than the context of any model: what is sent by reference, or added by a gateway, counts too.
_MOST_INPUT: Final = 2_000_000
_BYTES_PER_TOKEN: Final = 4
_NUMBER: Final = re.compile(r"[0-9]{1,12}")


class ReportedUsage:
    """Counts of one call: known ones are kept, others estimated by the bytes that went each way."""

    def __init__(self, *, sent_bytes: int, max_tokens: int) -> None:
        self._sent_bytes = sent_bytes
        self._max_output = 2 * max_tokens
        self._counts: dict[str, int] = {}
        self._is_final = False
        self._is_odd = False

    def report(self, usage: object, *, received: int, is_final: bool) -> None:
        """Take an event's usage: counts are cumulative, and those left out stay the same.

        Gateways report zero for what they don't know yet, or no longer: no count becomes zero.
        Units: `received` in characters of the answer so far.
        """
        reported: dict[Any, Any] = usage if isinstance(usage, dict) else {}
        for name in _INPUT:
            self._take(name, reported.get(name), most=_MOST_INPUT + self._sent_bytes)
        if self._take(_OUTPUT, reported.get(_OUTPUT), most=self._max_output + received):
            self._is_final = self._is_final or is_final

    def _take(self, name: str, value: object, *, most: int) -> bool:
        """Keep the count if it is one, and return whether it is more than zero."""
        if value is None:
            return False
        count = _count(value)
        if count is None or count > most:
            self._is_odd = True
            return False
        if count or name not in self._counts:
            self._counts[name] = count
        return count > 0

    def total(self, *, received: int) -> tuple[TokenUsage, bool]:
        """Return the usage of the answer so far, and whether some of it is an estimate."""
        counts = {ours: self._counts.get(theirs, 0) for theirs, ours in _INPUT.items()}
        estimated = self._is_odd
        if not any(counts.values()):
            counts["input_tokens"] = -(-self._sent_bytes // _BYTES_PER_TOKEN)
            estimated = True
        output = self._counts.get(_OUTPUT, 0)
        if not self._is_final:
            estimated = estimated or received > 0 or _OUTPUT not in self._counts
            output = max(output, -(-received // _BYTES_PER_TOKEN))
        return TokenUsage(output_tokens=output, **counts), estimated


def _count(value: object) -> int | None:
    match value:
        case bool():
            return None
        case int() if value >= 0:
            return value
        case float() if value >= 0 and value.is_integer():
            return int(value)
        case str() if _NUMBER.fullmatch(value):
            return int(value)
        case _:
            return None
