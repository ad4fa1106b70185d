"""URLs that the workers send requests to: http or https, without credentials.

The destination is checked when the URL is used, because a name's address can change.
"""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

_SIMPLE: Final = re.compile(r"[\x21-\x7e]+")


def _web_address(address: str) -> str:
    if not _SIMPLE.fullmatch(address):
        raise ValueError("must be ASCII without spaces; write international names as xn--…")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a valid URL") from None
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ValueError("must be an http:// or https:// URL with a host")
    if "@" in parts.netloc:
        raise ValueError(
            "must not contain a user name or password; send them as a header or secret"
        )
    if "\\" in address or "#" in address:
        raise ValueError("must not contain a fragment or a backslash")
    return address


WebAddress = Annotated[
    str,
    Field(min_length=1, max_length=2000, examples=["https://tools.example.com/mcp"]),
    AfterValidator(_web_address),
]
