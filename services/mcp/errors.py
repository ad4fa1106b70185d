"""Errors of MCP servers, and the bound on text that servers choose.

McpServerError          the server or its configuration needs a fix
McpCallError            a call without a result
├── CallLostError       no answer; the same call may work later
├── SessionLostError    the session has expired, and the server did nothing
└── CallRejectedError   an answer that is an error, or that is not a result
"""

from typing import Final, Literal, TypeAlias

from schema.wire import make_storable

Outlook: TypeAlias = Literal["away", "missing", "refused"]
"""What to expect of the next attempt: an unavailable server may be back by then; one that refuses
needs a fix first. What is missing (404) may come once a server that was away has started.
"""

_MAX_CHARS: Final = 500
_AWAY: Final = frozenset({408, 425, 429})


def is_away_by(status: int) -> bool:
    """Return whether an HTTP status says that the same request may work later."""
    return status in _AWAY or status >= 500


def bounded(text: str, max_chars: int = _MAX_CHARS) -> str:
    """Return a server's text, storable and cut to `max_chars`."""
    text = make_storable(text[: max_chars + 1])
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


class McpServerError(Exception):
    """What a server did wrong, in a sentence without its secrets."""

    def __init__(self, sentence: str, *, outlook: Outlook = "refused") -> None:
        super().__init__(sentence)
        self.outlook = outlook


class McpCallError(Exception):
    """A call without a result; the text holds no secret, but may come from the server."""


class CallLostError(McpCallError):
    """No answer came; `reached` is whether the call may have taken effect.

    `is_unreachable` is whether other calls can be expected to fail as well.
    """

    def __init__(
        self,
        sentence: str,
        *,
        reached: bool,
        retry_after_s: float | None = None,
        is_unreachable: bool = False,
        outlook: Outlook = "away",
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.reached = reached
        self.retry_after_s = retry_after_s
        self.is_unreachable = is_unreachable
        self.outlook = outlook


class SessionLostError(McpCallError):
    """The session has expired; the call had no effect."""


class CallRejectedError(McpCallError):
    """The answer is an error or can't be read; the text is for the model."""
