"""Challenges of MCP servers: what is read from `WWW-Authenticate`, however it is written."""

import httpx2
import pytest

from services.mcp.challenges import Challenge, challenge_in, named, scopes_in

METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource"


def read(*values: str) -> Challenge:
    return challenge_in(httpx2.Headers([(b"WWW-Authenticate", value.encode()) for value in values]))


@pytest.mark.parametrize(
    "header",
    [
        f'Bearer scope="a b", resource_metadata="{METADATA}"',
        f'bearer resource_metadata={METADATA},scope="a b"',
        f'Bearer realm="x, scope=\\"no\\"" , scope = "a b" , resource_metadata="{METADATA}"',
        f'Basic realm="scope=no", Bearer scope="a  b b", resource_metadata="{METADATA}"',
        f'Bearer error_description="x scope=\\"c\\"", scope="a b", resource_metadata="{METADATA}"',
        f'Bearer scope="a b", resource_metadata="{METADATA}", Digest scope="c", nonce="x"',
    ],
)
def test_a_bearer_challenge_is_read_as_it_is_written(header: str) -> None:
    assert read(header) == Challenge(("a", "b"), METADATA)


def test_a_challenge_may_come_in_several_headers() -> None:
    assert read('Basic realm="x"', 'Bearer scope="a"', 'Bearer scope="b"').scopes == ("a",)


def test_a_lack_of_scopes_is_told_from_an_invalid_token() -> None:
    assert read('Bearer error="insufficient_scope", scope="a"').is_insufficient
    assert not read('Bearer error="invalid_token", scope="a"').is_insufficient


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        'Bearer scope="never closed',
        "=,=,=",
        'Basic scope="a"',
        "Bearer scope=\x00\x01",
        'Bearer scope="a\\',
        'Bearer resource_metadata="file:///etc/passwd"',
        'Bearer resource_metadata="https://user:password@example.com/"',
        'Bearer resource_metadata="http://[::1"',
        'Bearer resource_metadata="//example.com"',
        'Bearer scope="\\"\\\\ ünï"',
    ],
)
def test_what_is_no_challenge_asks_for_nothing(header: str) -> None:
    assert read(header) == Challenge()


@pytest.mark.parametrize(
    "header",
    [
        'Bearer scope="' + "a " * 50_000 + '"',
        'Bearer scope="' + "\\" * 100_001,
        "Bearer " + "a=" * 50_000,
        "Bearer " + 'a="' * 33_000,
        " , " * 33_000,
        "Bearer " + ", ".join(f'x{n}="{n}"' for n in range(10_000)),
    ],
)
def test_a_header_of_100_kb_is_read_in_no_time(header: str) -> None:
    assert len(read(header).scopes) <= 1


def test_scopes_fit_into_a_request() -> None:
    scopes = scopes_in(
        ["fine", "fine", 7, None, "", "two words", 'quo"ted', "x" * 201, *map(str, range(5_000))]
    )

    assert scopes[:2] == ("fine", "0")
    assert len(" ".join(scopes)) <= 1_000


def test_a_secret_named_as_a_scope_is_not_shown() -> None:
    shown = named(
        ["tools:read", "sk-secret-token", "x-sk-secret-token-x", "sk-secret"],
        secrets=["Bearer sk-secret-token", "en"],
    )

    assert shown == "`tools:read`"


def test_only_some_of_many_scopes_are_shown() -> None:
    shown = named([f"s{n}" for n in range(60)], secrets=())

    assert shown.startswith("`s0`, `s1`")
    assert shown.endswith("`s9` and 50 more")
