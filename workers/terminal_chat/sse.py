"""Owns the parsing of server-sent events; connecting and resuming are the caller's.

The field `retry` is ignored: this client paces its reconnections itself.
"""

import codecs
import re
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a stream, and the id to resume behind it."""

    name: str
    data: str
    last_event_id: str


class EventParser:
    """Turns the bytes of one connection into events, however they were cut into chunks.

    An event that the connection's end cut short is never given out, nor its id.
    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
    """

    def __init__(self, *, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line = ""
        self._after_carriage_return = False
        self._name = ""
        self._data: list[str] = []
        self._id = last_event_id

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that `chunk` completes, in their order."""
        events = (self._take(line) for line in self._lines(self._decoder.decode(chunk)))
        return [event for event in events if event is not None]

    def _lines(self, text: str) -> list[str]:
        if not text:
            return []
        # A line ends at its CR already; a LF that comes with the next chunk belongs to it.
        start = 1 if self._after_carriage_return and text[0] == "\n" else 0
        self._after_carriage_return = text[-1] == "\r"
        *lines, self._line = _LINE_END.split(self._line + text[start:])
        return lines

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self.last_event_id = "", [], self._id
        if not data:
            return None
        return ServerSentEvent(name, "\n".join(data), self.last_event_id)
