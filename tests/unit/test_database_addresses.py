"""URLs of Postgres, as managed databases hand them out."""

import ssl
from typing import Any

import asyncpg
import pytest
from asyncpg import connect_utils

from services.database.addresses import driver_arguments
from services.database.startup import explain, shown

MALFORMED = ("postgresql://ada:hush/hush@db:5432/x", "postgresql://ada:12/hush@db:5432/x")


def parsed(url: str) -> tuple[list[Any], Any]:
    """Return what the driver makes of a URL: addresses, and everything else."""
    unset = dict.fromkeys(
        (
            *("host", "port", "user", "password", "passfile", "database", "ssl", "service"),
            *("servicefile", "direct_tls", "server_settings", "target_session_attrs"),
            *("krbsrvname", "gsslib"),
        )
    )
    parse: Any = vars(connect_utils)["_parse_connect_dsn_and_args"]
    addresses, parameters = parse(**{**unset, **driver_arguments(url)})
    return addresses, parameters


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_all_usual_schemes_are_taken(scheme: str) -> None:
    assert driver_arguments(f"{scheme}://everturn@db/everturn") == {
        "dsn": "postgresql://everturn@db/everturn"
    }


def test_what_only_other_clients_know_is_left_out() -> None:
    url = (
        "postgres://ada:pw@ep-1.example.com/everturn?sslmode=require&channel_binding=require"
        "&connect_timeout=10&pgbouncer=true&options=endpoint%3Dep-1&application_name=a+b"
    )

    addresses, parameters = parsed(url)

    assert addresses == [("ep-1.example.com", 5432)]
    assert parameters.server_settings == {
        "options": "endpoint=ep-1",
        "application_name": "a b",
    }
    assert parameters.sslmode.name == "require"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://everturn@/everturn?host=/run/postgresql&port=5433",
        "postgresql://everturn@%2Frun%2Fpostgresql:5433/everturn",
    ],
)
def test_unix_sockets_are_reached(url: str) -> None:
    addresses, _ = parsed(url)

    assert addresses == ["/run/postgresql/.s.PGSQL.5433"]


def test_passwords_are_decoded() -> None:
    _, parameters = parsed("postgresql://ada:p%40ss%2Fw%3F%23+rd@db/everturn")

    assert parameters.password == "p@ss/w?#+rd"


def test_several_hosts_are_tried() -> None:
    addresses, _ = parsed("postgresql://ada@a:1,b:2/everturn?target_session_attrs=read-write")

    assert addresses == [("a", 1), ("b", 2)]


def test_the_authorities_of_the_system_can_be_trusted() -> None:
    arguments = driver_arguments("postgresql://db/x?sslmode=verify-full&sslrootcert=system")

    assert arguments["dsn"] == "postgresql://db/x"
    assert arguments["ssl"].verify_mode is ssl.CERT_REQUIRED
    assert arguments["ssl"].check_hostname


@pytest.mark.parametrize("url", ["", "mysql://db/everturn", "db:5432", *MALFORMED])
def test_an_unusable_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(asyncpg.ClientConfigurationError) as refused:
        driver_arguments(url)

    line = explain(refused.value, url, variable="DATABASE_URL")
    assert line.startswith("DATABASE_URL can't be used: ")
    assert "hush" not in line


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("postgresql://ada:hush@db:5432/everturn?sslmode=require", "ada@db:5432/everturn"),
        ("postgresql://ada:hush@a:1,b:2/everturn", "ada@a:1,b:2/everturn"),
        ("postgresql:///everturn?host=/run/postgresql&user=ada", "ada@/run/postgresql/everturn"),
        ("postgresql://db/everturn?password=hush", "db/everturn"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, line: str) -> None:
    assert shown(url) == line
