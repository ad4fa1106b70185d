"""Owns what can go wrong with an outgoing request, and whether the other side can know of it.

OutgoingError
├── InvalidRequestError      no address of the web, or no valid request
├── ForbiddenAddressError    the host is not public, and not allowed by name
├── UnknownHostError         the host has no address, or nobody could say one in time
├── ConnectFailedError       no connection: refused, too slow, no valid certificate
├── TimedOutError            not over within the time given
├── BrokenConnectionError    the connection ended early, or what came is no HTTP
├── RedirectedError          an answer that sends elsewhere
├── CompressedError          a compressed answer, which nobody asked for
└── TooLargeError            an answer of more than may be read

The sentences begin with `It`, which is the other side. They quote nothing: not the address, which
may hold a secret, nor a word of the answer, which is a stranger's.
"""


class OutgoingError(Exception):
    """A request without an answer; `reached` is whether it can have had its effect."""

    def __init__(self, sentence: str, *, reached: bool) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.reached = reached


class InvalidRequestError(OutgoingError):
    """What is to be sent is no request over HTTP."""

    def __init__(self, *, reached: bool) -> None:
        super().__init__(
            "Its address or a header is not valid: an address begins with http:// or https://, "
            "and a header holds no line break.",
            reached=reached,
        )


class ForbiddenAddressError(OutgoingError):
    """The host leads into a network that is not public."""

    def __init__(self) -> None:
        super().__init__(
            "Its host has an address that is not public. If it is meant, name the host in "
            "EVERTURN_ALLOWED_PRIVATE_HOSTS.",
            reached=False,
        )


class UnknownHostError(OutgoingError):
    """The name of the host stands for no address."""

    def __init__(self) -> None:
        super().__init__("Its host is not known.", reached=False)


class ConnectFailedError(OutgoingError):
    """There is no connection, so nothing was sent."""

    def __init__(self, sentence: str = "Connection failed.") -> None:
        super().__init__(sentence, reached=False)


class TimedOutError(OutgoingError):
    """The time for the request was over before its answer was complete."""

    def __init__(self, *, reached: bool) -> None:
        super().__init__("It did not answer in time.", reached=reached)


class BrokenConnectionError(OutgoingError):
    """The answer broke off, or can't be read."""

    def __init__(self, *, reached: bool) -> None:
        super().__init__("The connection to it broke.", reached=reached)


class RedirectedError(OutgoingError):
    """The answer sends elsewhere, which is not followed."""

    def __init__(self) -> None:
        super().__init__("It answered with a redirect, which is not followed.", reached=True)


class CompressedError(OutgoingError):
    """The answer is compressed: what it amounts to is not what was counted."""

    def __init__(self) -> None:
        super().__init__("It answers compressed, although it was asked not to.", reached=True)


class TooLargeError(OutgoingError):
    """The answer is larger than what may be read."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"It answered more than {limit:,} bytes.", reached=True)
