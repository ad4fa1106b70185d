"""Owns the shape of addresses that the workers send requests to: http or https, no credentials.

Where such an address leads is decided when it is used: names change what they stand for.
"""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

_SIMPLE: Final = re.compile(r"[\x21-\x7e]+")


def _web_address(address: str) -> str:
    if not _SIMPLE.fullmatch(address):
        raise ValueError("must be ASCII without spaces; a name in another script is written xn--…")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a valid URL") from None
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ValueError("must be a URL that begins with http:// or https:// and names a host")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or a password; send them as a header or secret")
    if "\\" in address or "#" in address:
        raise ValueError("must hold neither a fragment nor a backslash")
    return address


WebAddress = Annotated[
    str,
    Field(min_length=1, max_length=2000, examples=["https://tools.example.com/mcp"]),
    AfterValidator(_web_address),
]
