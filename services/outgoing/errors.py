"""Errors of outgoing requests, and whether the request can have reached the server.

OutgoingError
├── InvalidRequestError      invalid URL or header
├── ForbiddenAddressError    the host is not public, and not allowed by an operator
├── UnknownHostError         the host can't be resolved
├── ConnectFailedError       no connection: refused, timed out, or an invalid certificate
├── TimedOutError            no complete response in time
├── BrokenConnectionError    the connection was lost, or the response is not HTTP
├── RedirectedError          a redirect
├── CompressedError          a compressed response, although none was accepted
└── TooLargeError            a response above the size limit

The sentences follow one that names the server. They quote nothing: the URL may hold a secret, and
the response is untrusted.
"""


class OutgoingError(Exception):
    """A request without a response; `reached` is whether it may have taken effect."""

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
    """The host can't be resolved."""

    def __init__(self) -> None:
        super().__init__("The host could not be resolved.", reached=False)


class ConnectFailedError(OutgoingError):
    """No connection, so nothing was sent."""

    def __init__(self, sentence: str = "Connection failed.") -> None:
        super().__init__(sentence, reached=False)


class TimedOutError(OutgoingError):
    """The response was not complete in time."""

    def __init__(self, *, reached: bool) -> None:
        super().__init__("The request timed out.", reached=reached)


class BrokenConnectionError(OutgoingError):
    """The response broke off, or can't be read."""

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
