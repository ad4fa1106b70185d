"""Every bad input is refused in the one shape, and nothing of it is stored."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.fixtures.api_user import PASSWORD, ApiUser
from tests.fixtures.stack import Stack

MISSING = str(uuid4())


def check_refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"error", "meta"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert body["error"]["retryable"] is False
    assert body["meta"]["requestId"] == response.headers["x-request-id"]
    return body


async def stored_of(stack: Stack, user: ApiUser) -> tuple[int, int]:
    chats = await stack.inspection.value(
        "SELECT count(*) FROM chats WHERE user_id = $1::uuid", user.id
    )
    turns = await stack.inspection.value(
        "SELECT count(*) FROM turns WHERE user_id = $1::uuid", user.id
    )
    return int(chats), int(turns)


TEXTS = {
    "missing": b"{}",
    "null": b'{"%s": null}',
    "a number": b'{"%s": 7}',
    "a list": b'{"%s": ["a"]}',
    "an object": b'{"%s": {"a": 1}}',
    "true": b'{"%s": true}',
    "empty": b'{"%s": ""}',
    "NUL": b'{"%s": "a\\u0000b"}',
    "half a surrogate pair": b'{"%s": "a\\ud800b"}',
    "an unknown field": b'{"%s": "a", "unknown": 1}',
}
BODIES = {
    "no body": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a string": b'"content"',
    "a number too large": b"9" * 5000,
    "deeply nested": b"[" * 5_000,
    "too many fields": b"{%s}" % b",".join(b'"k%d": 1' % number for number in range(20_000)),
    "no UTF-8": b'{"content": "\xff", "title": "\xff"}',
    "NaN": b'{"content": NaN, "title": NaN}',
}


async def send(user: ApiUser, path: str, content: bytes, **headers: str) -> httpx.Response:
    return await user.request(
        "POST", path, content=content, headers={"Content-Type": "application/json", **headers}
    )


@pytest.mark.parametrize("case", TEXTS)
async def test_a_message_must_be_text(user: ApiUser, stack: Stack, case: str) -> None:
    chat = await user.create_chat()
    body = TEXTS[case].replace(b"%s", b"content")

    response = await send(user, f"/chats/{chat}/messages", body)

    refused = check_refused(response, 400, "VALIDATION_ERROR")
    assert refused["error"]["details"][0]["path"].startswith("body.")
    assert await stored_of(stack, user) == (1, 0)


@pytest.mark.parametrize("case", sorted(TEXTS.keys() - {"missing", "null"}))
async def test_a_title_must_be_text(user: ApiUser, stack: Stack, case: str) -> None:
    response = await send(user, "/chats", TEXTS[case].replace(b"%s", b"title"))

    check_refused(response, 400, "VALIDATION_ERROR")
    assert await stored_of(stack, user) == (0, 0)


@pytest.mark.parametrize("case", BODIES)
async def test_a_body_must_be_a_json_object(user: ApiUser, stack: Stack, case: str) -> None:
    chat = await user.create_chat()

    for path in ("/chats", f"/chats/{chat}/messages", "/auth/login", "/auth/signup"):
        refused = check_refused(await send(user, path, BODIES[case]), 400, "VALIDATION_ERROR")
        assert refused["error"]["details"][0]["path"].startswith("body")

    assert await stored_of(stack, user) == (1, 0)


@pytest.mark.parametrize(
    ("path", "case", "message"),
    [
        ("/chats", "deeply nested", "Nested too deeply."),
        ("/knowledge", "deeply nested", "Too many fields or items."),
        ("/chats", "no UTF-8", "Must be valid UTF-8."),
        ("/chats", "too many fields", "Too many fields or items."),
        ("/knowledge", "too many fields", "Too many fields or items."),
    ],
)
async def test_an_unreadable_body_is_rejected_with_the_reason(
    user: ApiUser, path: str, case: str, message: str
) -> None:
    refused = check_refused(await send(user, path, BODIES[case]), 400, "VALIDATION_ERROR")

    assert refused["error"]["details"] == [{"path": "body", "message": message}]


async def test_only_so_many_invalid_fields_are_listed(user: ApiUser) -> None:
    response = await user.request("POST", "/chats", json=dict.fromkeys(map(str, range(5_000)), 1))

    refused = check_refused(response, 400, "VALIDATION_ERROR")
    assert len(refused["error"]["details"]) == 100


async def test_commas_and_quotes_in_a_text_are_no_fields(user: ApiUser) -> None:
    content = 'a, "b", [c], {d}, \\' * 5_000

    created = await user.request("POST", "/knowledge", json={"title": "x", "content": content})

    assert created.status_code == 201, created.text


async def test_a_message_that_is_too_long_is_rejected_with_the_limit(user: ApiUser) -> None:
    chat = await user.create_chat()

    response = await user.request("POST", f"/chats/{chat}/messages", json={"content": "x" * 32_001})

    sentence = "Must be at most 32,000 characters, not 32,001."
    refused = check_refused(response, 400, "VALIDATION_ERROR")
    assert refused["error"]["details"] == [{"path": "body.content", "message": sentence}]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"content": " \n\t "}, "body.content"),
        ({"content": "x" * 32_001}, "body.content"),
        ({"content": "a", "model": "claude-of-nobody"}, "body.model"),
        ({"content": "a", "model": ""}, "body.model"),
        ({"content": "a", "model": 7}, "body.model"),
        ({"content": "a", "stream": "yes"}, "body.stream"),
        ({"content": "a", "stream": 1}, "body.stream"),
        ({"content": "a", "ifBusy": "wait"}, "body.ifBusy"),
        ({"content": "a", "ifBusy": None}, "body.ifBusy"),
    ],
)
async def test_each_field_of_a_message_is_checked_and_named(
    user: ApiUser, stack: Stack, body: dict[str, Any], path: str
) -> None:
    chat = await user.create_chat()

    response = await user.request("POST", f"/chats/{chat}/messages", json=body)

    refused = check_refused(response, 400, "VALIDATION_ERROR")
    assert refused["error"]["details"][0]["path"] == path
    assert await stored_of(stack, user) == (1, 0)


async def test_a_title_is_limited_to_two_hundred_characters(user: ApiUser) -> None:
    longest = await user.request("POST", "/chats", json={"title": "\U0001f642" * 200})
    longer = await user.request("POST", "/chats", json={"title": "x" * 201})

    assert longest.status_code == 201
    check_refused(longer, 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_another_type_of_content_is_refused(
    user: ApiUser, stack: Stack, content_type: str
) -> None:
    response = await send(user, "/chats", b'{"title": "a"}', **{"Content-Type": content_type})

    check_refused(response, 400, "VALIDATION_ERROR")
    assert await stored_of(stack, user) == (0, 0)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_refused(
    user: ApiUser, stack: Stack, *, declared: bool
) -> None:
    chat = await user.create_chat()
    body = json.dumps({"content": "x" * stack.settings.max_body_bytes}).encode()

    async def pieces() -> Any:  # noqa: ANN401 -- an asynchronous iterator of bytes
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    response = await user.request(
        "POST",
        f"/chats/{chat}/messages",
        content=body if declared else pieces(),
        headers={"Content-Type": "application/json"},
    )

    check_refused(response, 413, "PAYLOAD_TOO_LARGE")
    assert await stored_of(stack, user) == (1, 0)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/chats/{}"),
        ("GET", "/chats/{}/messages"),
        ("POST", "/chats/{}/messages"),
        ("GET", "/turns/{}"),
        ("GET", "/turns/{}/events"),
        ("POST", "/turns/{}/cancel"),
    ],
)
async def test_ids_must_be_uuids_of_existing_resources(
    user: ApiUser, method: str, path: str
) -> None:
    body = {"json": {"content": "a"}} if path.endswith("messages") and method == "POST" else {}
    for nonsense in ("1", "x" * 300, "%00", "0" * 33, "..%2f"):
        response = await user.request(method, path.format(nonsense), **body)
        assert response.status_code in {400, 404}, response.text
        assert response.json()["error"]["code"] in {"VALIDATION_ERROR", "NOT_FOUND"}
    check_refused(await user.request(method, path.format(MISSING), **body), 404, "NOT_FOUND")


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_an_idempotency_key_has_its_bounds(user: ApiUser, stack: Stack, key: str) -> None:
    chat = await user.create_chat()

    response = await user.post(chat, "Hello", key=key)

    check_refused(response, 400, "VALIDATION_ERROR")
    assert await stored_of(stack, user) == (1, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"email": None},
        {"email": 7},
        {"email": "nobody"},
        {"email": "a@b"},
        {"email": f"{'x' * 250}@example.com"},
        {"email": "a\x00@example.com"},
        {"password": None},
        {"password": "short"},
        {"password": "x" * 257},
        {"password": "with \x00 inside"},
        {"displayName": ""},
        {"displayName": "x" * 101},
        {"role": "admin"},
        {"unknown": 1},
    ],
    ids=str,
)
async def test_a_signup_is_checked(
    http: httpx.AsyncClient, stack: Stack, change: dict[str, Any]
) -> None:
    email = f"{uuid4().hex}@example.com"
    body = {"email": email, "password": PASSWORD, **change}

    response = await http.post("/auth/signup", json=body)

    refused = check_refused(response, 400, "VALIDATION_ERROR")
    assert refused["error"]["details"][0]["path"] == f"body.{next(iter(change))}"
    assert PASSWORD not in response.text
    found = await stack.inspection.value("SELECT count(*) FROM users WHERE email = $1", email)
    assert found == 0


@pytest.mark.parametrize("path", ["/auth/login", "/auth/refresh", "/auth/logout"])
@pytest.mark.parametrize("value", [None, 7, "", "x" * 1000, "\x00"], ids=repr)
async def test_credentials_are_validated(http: httpx.AsyncClient, path: str, value: object) -> None:
    fields = ("email", "password") if path == "/auth/login" else ("refreshToken",)

    response = await http.post(path, json=dict.fromkeys(fields, value))

    check_refused(response, 400, "VALIDATION_ERROR")


async def test_half_a_surrogate_pair_in_a_password_or_an_address_is_refused(
    http: httpx.AsyncClient,
) -> None:
    for body in (
        b'{"email": "a@example.com", "password": "12345678\\udc00"}',
        b'{"email": "a\\udc00@example.com", "password": "12345678"}',
    ):
        for path in ("/auth/signup", "/auth/login"):
            headers = {"Content-Type": "application/json"}
            response = await http.post(path, content=body, headers=headers)
            check_refused(response, 400, "VALIDATION_ERROR")
