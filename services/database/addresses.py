"""URLs of Postgres, as people write them and providers hand them out, for the driver."""

import ssl
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import asyncpg

_SCHEMES: Final = ("postgresql", "postgres")
_DRIVER: Final = "+asyncpg"

# What other clients of Postgres, or poolers, do on their own side. The driver would send it to the
# server, which knows no such setting.
_OF_OTHER_CLIENTS: Final = frozenset(
    {
        *("channel_binding", "connect_timeout", "connection_limit", "fallback_application_name"),
        *("gssencmode", "keepalives", "keepalives_count", "keepalives_idle"),
        *("keepalives_interval", "load_balance_hosts", "pgbouncer", "pool_timeout"),
        *("require_auth", "sslcompression", "sslsni", "tcp_user_timeout"),
    }
)


def driver_arguments(url: str) -> dict[str, Any]:
    """Return a URL as the arguments of the driver's `connect`.

    As with libpq, it may have `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `options`, settings of
    the server, and several hosts or the folder of a Unix socket as `host`. What only other
    clients know is left out.
    Source: PostgreSQL, 32.1.1, Connection Strings.
    Errors: asyncpg.ClientConfigurationError, whose text shows nothing of the URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.removesuffix(_DRIVER) not in _SCHEMES:
        raise asyncpg.ClientConfigurationError("it must begin with postgresql://")
    address, _, query = rest.partition("?")
    _check_encoding(address)
    given = dict(parse_qsl(query, keep_blank_values=True))
    options = {name: value for name, value in given.items() if name not in _OF_OTHER_CLIENTS}
    arguments: dict[str, Any] = {}
    if options.get("sslrootcert") == "system":
        del options["sslrootcert"]
        options.pop("sslmode", None)
        arguments["ssl"] = ssl.create_default_context()
    query = f"?{urlencode(options)}" if options else ""
    return {"dsn": f"postgresql://{address}{query}", **arguments}


def _check_encoding(address: str) -> None:
    """Refuse what the driver would misread, and quote in its error: a part of a password, often."""
    place, _, database = address.partition("/")
    ports = [
        host.rpartition("]")[2].partition(":")[2] for host in place.rpartition("@")[2].split(",")
    ]
    if "@" in database or any(port and not port.isdecimal() for port in ports):
        raise asyncpg.ClientConfigurationError(
            "special characters of its password must be percent-encoded, and ports be numbers"
        )
