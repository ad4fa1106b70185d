"""Owns what can go wrong between this client and the API, as sentences for the person.

ChatClientError
├── ApiError             the API refused, and says why
├── UnreadableAnswerError
├── UnreachableError     nobody answers at the address
├── ConnectionLostError  a turn runs on, but its stream can't be had any more
├── SignedOutError       there are no tokens, or they are not accepted any more
├── SignInError          signing in is not possible
└── CredentialFileError  the tokens can't be read or kept
"""


class ChatClientError(Exception):
    """Something that ends a command of the terminal client; its text is shown as it is."""


class ApiError(ChatClientError):
    """The API answered with an error."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        retryable: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s
        self.passes = retryable and status >= 500


class UnreadableAnswerError(ChatClientError):
    """What answered does not speak this API."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The server sent {what} that this client can't read.")


class UnreachableError(ChatClientError):
    """Nobody answers at the address."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"Nothing answers at {url}. Start it with `make dev` or `everturn dev`, "
            "or name another address with --url."
        )


class ConnectionLostError(ChatClientError):
    """The stream of a turn could not be resumed for too long."""

    def __init__(self, chat_id: str) -> None:
        super().__init__(
            "The connection is lost. The turn runs on without it: "
            f"`everturn chat --chat {chat_id}` will show its answer."
        )


class SignedOutError(ChatClientError):
    """There are no tokens for this address, or they are not accepted any more."""

    def __init__(self) -> None:
        super().__init__("You are not signed in any more.")


class CredentialFileError(ChatClientError):
    """The file of the tokens can't be read or written."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The tokens can't be kept: {reason}.")


class SignInError(ChatClientError):
    """Signing in is not possible; the text says what would help."""
