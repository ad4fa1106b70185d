"""Owns the errors of speaking with MCP servers.

McpServerError          the server did not do what it has to; a fix of it or of its entry is needed
McpCallError            a call that has no result
├── CallLostError       the server did not answer; the same call may work later
├── SessionLostError    the server has forgotten the session, and did nothing
└── CallRefusedError    the server answered, with an error or with what is no result
"""


class McpServerError(Exception):
    """What a server did wrong, in a sentence that quotes none of its secrets."""


class McpCallError(Exception):
    """A call that has no result; its text quotes no secret, but may be a stranger's."""


class CallLostError(McpCallError):
    """There was no answer; `reached` is whether the call may have had its effect.

    `is_unreachable` is whether it can be taken that other calls would fare no better.
    """

    def __init__(
        self,
        sentence: str,
        *,
        reached: bool,
        retry_after_s: float | None = None,
        is_unreachable: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.reached = reached
        self.retry_after_s = retry_after_s
        self.is_unreachable = is_unreachable


class SessionLostError(McpCallError):
    """The session is gone, and with it what the server would have done."""


class CallRefusedError(McpCallError):
    """The answer is an error, or can't be read; the text is for the model."""
