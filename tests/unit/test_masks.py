"""A tool's own secrets do not appear in what it returns, however it encodes them."""

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tools.masks import MASK, NO_SECRETS, SecretMask, configured_secrets, secrets_of_url

SECRET = 'p/4+ss&w"örd?=1'

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": lambda text: json.dumps(text)[1:-1],
    "json, unicode": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "url": lambda text: quote(text, safe=""),
    "url, lower case": lambda text: re.sub(
        "%..", lambda code: code[0].lower(), quote(text, safe="")
    ),
    "form": quote_plus,
    "html": html.escape,
    "hex": lambda text: text.encode().hex(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "basic": lambda text: base64.b64encode(f"me:{text}".encode()).decode(),
    "basic, other user": lambda text: base64.b64encode(f"you:{text}".encode()).decode(),
    "basic, third user": lambda text: base64.b64encode(f"them:{text}".encode()).decode(),
}


@pytest.mark.parametrize("encoded", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_a_secret_is_masked_in_each_encoding(encoded: Callable[[str], str]) -> None:
    form = encoded(SECRET)

    masked = SecretMask([SECRET])(f"rejected: {form}, try again")

    assert form not in masked
    assert MASK in masked
    assert (masked[:10], masked[-11:]) == ("rejected: ", ", try again")


@given(secret=st.text(min_size=6, max_size=60).map(str.strip).filter(lambda text: len(text) >= 6))
@pytest.mark.parametrize("encoded", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_any_secret_is_masked(encoded: Callable[[str], str], secret: str) -> None:
    form = encoded(secret)

    assert form not in SecretMask([secret])(f"<{form}>")


@pytest.mark.parametrize(
    ("configured", "leaked"),
    [
        ("Bearer abcdef123456", "abcdef123456"),
        ("Basic " + base64.b64encode(b"me:hunter2!").decode(), "hunter2!"),
        ("postgres://me:s%40cret99@db/x", "s@cret99"),
        ("https://api.example.com/?key=abcdefgh12", "abcdefgh12"),
        ('{"client_email": "me@example.com", "private_key": "abcdefghijk"}', "abcdefghijk"),
        (f"-----BEGIN KEY-----\n{'aB3' * 20}\n-----END KEY-----", "aB3" * 20),
    ],
)
def test_what_is_secret_in_a_value_is_masked_alone(configured: str, leaked: str) -> None:
    assert SecretMask([configured])(f"is {leaked} right?") == f"is {MASK} right?"


def test_short_values_do_not_mask_everything() -> None:
    assert SecretMask(["", "a", "123"])("a 123 banana") == "a 123 banana"
    assert NO_SECRETS("anything") == "anything"


def test_what_only_says_where_and_how_is_no_secret() -> None:
    environment = {
        "ROOT": "/srv/documents",
        "REGION": "eu-central-1",
        "LANG": "en_US.UTF-8",
        "MODE": "production",
        "PORT": "8080",
        "HOST": "https://api.example.com/v1",
        "API_KEY": "production",
        "OTHER": "aK3-99xZ!q",
        "DATABASE": "postgres://me:secret99@db/x",
    }

    assert list(configured_secrets(environment)) == [
        environment[name] for name in ("API_KEY", "OTHER", "DATABASE")
    ]


def test_a_url_may_hold_a_secret() -> None:
    url = "https://me:pass%20word@example.com/hook?token=abcdefgh&x=1"

    assert list(secrets_of_url(url)) == ["pass word", "abcdefgh"]


@pytest.mark.parametrize("limit", range(60, 130))
def test_no_part_of_a_secret_is_left_at_a_cut(limit: int) -> None:
    text = f"{SECRET * 3}{'x' * 40}{SECRET}{'y' * 400}"

    cut = SecretMask([SECRET]).cut(text, limit)

    assert cut.startswith(MASK * 3)
    assert SECRET[:3] not in cut
    assert len(cut) <= limit + 1
