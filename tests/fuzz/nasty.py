"""Malformed input, written by hand; generators seldom produce it."""

import json
from collections.abc import Iterable
from typing import Any, Final, TypeVar
from urllib.parse import quote
from zlib import crc32

T = TypeVar("T")

TEXTS: Final = {
    "empty": "",
    "blank": " \t\n\u3000",
    "nul": "a\x00b",
    "control-characters": "\x01\x07\x1b[31m\x7f\x85",
    "right-to-left-marks": "\u202egnp.exe\u2066\u200f\u061c",
    "no-width": "\u200b\u2060\ufeff",
    "like-wildcards": "%_\\%%__",
    "quotes-of-sql": "'; SELECT 1; --",
    "markup": "</user_data><script>alert(1)</script>",
    "format-fields": "{0.__class__} %s %(a)s ${a} {{a}}",
    "a-path": "../../../../etc/passwd",
    "line-ends": "a\r\nX-Header: b",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "combining": "Z" + "\u0301" * 300,
    "one-that-grows-in-capitals": "\ufb03\u0149\u1e9e" * 60,
    "long": "x" * 30_000,
}
"""Texts that any client could send; not all of them are valid."""

LITERALS: Final = {
    **{name: json.dumps(text) for name, text in TEXTS.items()},
    "half-a-surrogate-pair": r'"a\ud800b"',
    "surrogates-in-the-wrong-order": r'"\udc00\ud800"',
    "infinite": "1e400",
    "minus-infinite": "-1e400",
    "not-a-number": "NaN",
    "huge-integer": "1" + "0" * 40,
    "integer-of-5000-digits": "9" * 5_000,
    "64-bits-and-one-more": str(2**63),
    "negative": "-1",
    "minus-zero": "-0.0",
    "tiny": "1e-400",
    "null": "null",
    "true": "true",
    "list": '["a", null, {}]',
    "object": '{"$ref": "#", "__proto__": {}, "\\u0000": 1, "": 2}',
    "deep-list": "[" * 500 + "]" * 500,
    "deep-object": '{"a":' * 500 + "1" + "}" * 500,
}
"""JSON as it is sent, for any field."""

BODIES: Final[dict[str, tuple[dict[str, str], bytes]]] = {
    "nothing": ({}, b""),
    "blank": ({}, b" \n"),
    "null": ({}, b"null"),
    "a-list": ({}, b"[]"),
    "a-text": ({}, b'"x"'),
    "a-number": ({}, b"1e400"),
    "cut-off": ({}, b'{"title": "a'),
    "more-behind-it": ({}, b'{"title": "a"}{"title": "b"}'),
    "invalid-utf-8": ({}, b'{"title": "\xff\xfe\xc0\xaf", "content": "\xed\xa0\x80"}'),
    "a-byte-order-mark": ({}, b'\xef\xbb\xbf{"title": "a"}'),
    "utf-16": (
        {"Content-Type": "application/json; charset=utf-16"},
        '{"title": "a"}'.encode("utf-16"),
    ),
    "unknown-charset": ({"Content-Type": "application/json; charset=klingon"}, b'{"title": "a"}'),
    "very-deep": ({}, b"[" * 100_000),
    "very-deep-objects": ({}, b'{"a":' * 50_000),
    "a-nul": ({}, b'{"title": "a"}\x00'),
    "names-twice": ({}, b'{"title": "a", "title": "", "content": "a", "content": 7}'),
    "empty-name": ({}, b'{"": "a", "\\u0000": "b", "\\ud800": "c"}'),
    "plain-text": ({"Content-Type": "text/plain"}, b'{"title": "a"}'),
    "xml": ({"Content-Type": "application/xml"}, b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'),
    "a-form": ({"Content-Type": "application/x-www-form-urlencoded"}, b"title=a&title=%ff&%00"),
    "parts-without-boundary": ({"Content-Type": "multipart/form-data"}, b"--x\r\n\r\na\r\n--x--"),
    "parts-cut-off": (
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xff\x00/../a"\r\n\r\nabc',
    ),
    "no-type-at-all": ({"Content-Type": ""}, b'{"title": "a"}'),
    "a-type-that-is-none": ({"Content-Type": ";;;=,"}, b'{"title": "a"}'),
    "said-to-be-compressed": ({"Content-Encoding": "gzip"}, b'{"title": "a"}'),
}
"""Whole bodies, with the headers that belong to them."""

NEVER_VALID: Final = ("cut-off", "more-behind-it", "very-deep", "very-deep-objects", "xml")
"""The bodies that no operation may take for JSON."""

_RUBBISH: Final = (
    b"",
    b"\xff\xfe",
    b"\xe4\xf6\xfc",
    b"*",
    b'"',
    b'W/"',
    b"-1",
    b"9" * 400,
    b"x" * 8_000,
)

HEADERS: Final[tuple[tuple[str, bytes], ...]] = (
    *(("Idempotency-Key", value) for value in _RUBBISH),
    *(
        ("If-Match", value)
        for value in (*_RUBBISH, b'"1", "2"', b'W/"1"', b'"99999999999999999999"')
    ),
    *(("Last-Event-ID", value) for value in (*_RUBBISH, b"1-1", b"9223372036854775808-0", b"0-x")),
    *(("X-Request-Id", value) for value in _RUBBISH),
    *(("Accept", value) for value in (b"text/html", b"*", b"\xff", b"application/json;q=x")),
    *(("Accept-Encoding", value) for value in (b"gzip, br;q=x", b"identity;q=0", b"\xff")),
    *(("Accept-Language", value) for value in (b"tlh", b"\xff")),
    *(("Cookie", value) for value in (b"a", b"\xff=\xfe", b"a=b; a=c; ;;=")),
    *(("If-None-Match", value) for value in (b"*", b'"x"', b"\xff")),
    ("If-Modified-Since", b"never"),
    ("Range", b"bytes=5-1,-0"),
    ("Expect", b"tea"),
    ("Forwarded", b"for=\xff;by"),
    ("X-Forwarded-For", b"127.0.0.1, \xff, ::1%x"),
    ("X-Forwarded-Proto", b"ftp\xff"),
    ("X-HTTP-Method-Override", b"DELETE"),
    ("Traceparent", b"00-zz-zz-zz"),
    ("Origin", b"null\xff"),
    ("Referer", b"\xff"),
    ("Upgrade", b"h2c, websocket"),
)
"""Headers with values that make no sense; field values may hold any byte but NUL, CR and LF."""

SEGMENTS: Final = (
    "%00",
    "%FF%FE",
    "%ED%A0%80",
    "%2F",
    "..%2F..%2Fauth%2Fme",
    "%252e%252e",
    ".%2e",
    "%25",
    "%",
    "%zz",
    "*",
    "null",
    "0",
    "-1",
    "9" * 400,
    "x" * 8_000,
    "%F0%9F%92%A5",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "urn:uuid:00000000-0000-4000-8000-000000000000",
    "%7B00000000-0000-4000-8000-000000000000%7D",
    "00000000000040008000000000000000",
    "%E0%A5%A6",
)
"""What stands in a path where an id belongs, as it is sent."""


def some_of(values: Iterable[T], of: object, most: int) -> list[T]:
    """Return a share of the values, another for each operation: together they get all."""
    everything = list(values)
    start = crc32(str(of).encode()) % max(len(everything), 1)
    return [*everything[start:], *everything[:start]][:most]


def queries(name: str) -> list[str]:
    """Return query strings that ask nothing sensible of a parameter."""
    texts = [quote(text[:4_000].encode(errors="replace"), safe="") for text in TEXTS.values()]
    values = [*texts, "%FF", "%ED%A0%80", "%", "%zz", "9" * 40, "-1", "1e400", "NaN", "\u0661"]
    values = [quote(value, safe="%") for value in values]
    repeated = [f"{name}=1&{name}=2", f"{name}&{name}=", f"{name}[]=1&{name}[a]=2", "&&=&"]
    return [*(f"{name}={value}" for value in values), *repeated]


def with_literal(body: dict[str, Any], path: tuple[str, ...], literal: str) -> bytes:
    """Return a body whose field at `path` is a literal."""
    changed: dict[str, Any] = json.loads(json.dumps(body))
    inner = changed
    for name in path[:-1]:
        inside = inner.get(name)
        inner[name] = inside if isinstance(inside, dict) else {}
        inner = inner[name]
    inner[path[-1]] = _MARK
    return json.dumps(changed).replace(f'"{_MARK}"', literal).encode()


_MARK: Final = "the literal goes here"
