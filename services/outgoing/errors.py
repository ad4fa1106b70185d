"""Errors of outgoing requests, and whether the request can have reached the server.

OutgoingError
├── InvalidRequestError      invalid URL or header
├── ForbiddenAddressError    the host is not public, and not allowed by an operator
├── UnknownHostError         the host can't be resolved
├── ConnectFailedError       no connection: refused, or timed out
├── NotTrustedError          no connection: an invalid certificate, or no TLS at all
├── TimedOutError            no complete response in time
├── BrokenConnectionError    the connection was lost, or the response is not HTTP
├── RedirectedError          a redirect
├── CompressedError          a compressed response, although none was accepted
└── TooLargeError            a response above the size limit

The sentences follow one that names the server. They quote nothing: the URL may hold a secret, and
the response is untrusted.
"""


class OutgoingError(Exception):
    """A request without a response; `reached` is whether it may have taken effect.

    `is_final` is whether the same request can be expected to fail until somebody changes something:
    waiting for the host does not help.
    """

    is_final = True

    def __init__(self, sentence: str, *, reached: bool) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.reached = reached


class InvalidRequestError(OutgoingError):
    """The request can't be sent over HTTP."""

    def __init__(self, *, reached: bool) -> None:
        super().__init__(
            "The URL or a header is invalid: URLs must start with http:// or https://, and headers "
            "must not contain line breaks.",
            reached=reached,
        )


class ForbiddenAddressError(OutgoingError):
    """The host has a private address."""

    def __init__(self) -> None:
        super().__init__(
            "The host has a private address. To allow it, add the host to "
            "EVERTURN_ALLOWED_PRIVATE_HOSTS.",
            reached=False,
        )


class UnknownHostError(OutgoingError):
    """The host does not exist; or, if that is not final, it can't be resolved right now."""

    def __init__(self, *, is_final: bool = False) -> None:
        self.is_final = is_final
        what = "does not exist" if is_final else "could not be resolved"
        super().__init__(f"The host {what}.", reached=False)


class NotTrustedError(OutgoingError):
    """The host can't prove by TLS who it is, so nothing was sent."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, reached=False)


class ConnectFailedError(OutgoingError):
    """No connection, so nothing was sent."""

    is_final = False

    def __init__(self, sentence: str = "Connection failed.") -> None:
        super().__init__(sentence, reached=False)


class TimedOutError(OutgoingError):
    """The response was not complete in time."""

    is_final = False

    def __init__(self, *, reached: bool) -> None:
        super().__init__("The request timed out.", reached=reached)


class BrokenConnectionError(OutgoingError):
    """The response broke off, or can't be read."""

    is_final = False

    def __init__(self, *, reached: bool) -> None:
        super().__init__("The connection was lost.", reached=reached)


class RedirectedError(OutgoingError):
    """The response is a redirect, which is not followed."""

    def __init__(self) -> None:
        super().__init__(
            "The response is a redirect, and redirects are not followed.", reached=True
        )


class CompressedError(OutgoingError):
    """The response is compressed, so that its real size is unknown."""

    def __init__(self) -> None:
        super().__init__("The response is compressed, which is not supported.", reached=True)


class TooLargeError(OutgoingError):
    """The response is above the size limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The response exceeds {limit:,} bytes.", reached=True)
