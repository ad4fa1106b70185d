"""Uploaded documents: files and strings, their types, charsets and sizes."""

# ruff: noqa: RUF001 -- texts in several scripts

import asyncio

import httpx
import pytest

from tests.fixtures import documents
from tests.fixtures.api_user import ApiUser
from tests.fixtures.library import (
    ingested,
    titles,
)
from tests.fixtures.plans import allow
from tests.fixtures.stack import Stack

TWENTY_MIB = 20 * 1024 * 1024
FIFTY_MIB = 50 * 1024 * 1024


async def upload(
    user: ApiUser, file: tuple[str, bytes, str] | tuple[str, bytes], **fields: str
) -> httpx.Response:
    return await user.request("POST", "/knowledge", files={"file": file}, data=fields)


async def test_a_file_is_a_document_titled_by_its_name(user: ApiUser) -> None:
    response = await upload(user, ("C:\\papers\\Grüße.pdf", documents.pdf("Hello", "again")))

    document = response.json()["data"]
    assert response.status_code == 201, response.text
    assert document["title"] == "Grüße.pdf"
    assert document["contentType"] == "application/pdf"
    assert (await ingested(user, document["id"]))["content"] == "Hello\n\nagain"


@pytest.mark.parametrize(
    ("name", "said", "field", "expected"),
    [
        ("a.md", "application/octet-stream", None, "text/markdown"),
        ("a", "Text/HTML; charset=utf-8", None, "text/html"),
        ("a.pdf", "application/pdf", "text/plain", "text/plain"),
    ],
)
async def test_the_form_says_the_type_or_the_part_or_the_name(
    user: ApiUser, *, name: str, said: str, field: str | None, expected: str
) -> None:
    fields = {} if field is None else {"contentType": field}

    response = await upload(user, (name, b"Words.", said), **fields)

    assert response.status_code == 201, response.text
    assert response.json()["data"]["contentType"] == expected


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ({"files": {"file": ("a.png", b"Words.", "image/png")}}, "body.contentType"),
        ({"files": {"file": ("a", b"Words.")}}, "body.contentType"),
        ({"files": {"file": ("a.txt", b"")}}, "body.file"),
        ({"files": {"other": ("a.txt", b"Words.")}}, "body.other"),
        ({"files": {"file": ("a.txt", b"1")}, "data": {"file": "2"}}, "body.file"),
        ({"files": {"title": (None, "No file")}}, "body.file"),
        ({"files": {"file": ("a.txt", b"W")}, "data": {"title": "x" * 201}}, "body.title"),
        ({"files": {"file": ("a.txt", b"W")}, "data": {"title": "a\x00b"}}, "body.title"),
        ({"files": {"file": ("a.txt", b"W")}, "data": {"title": "x" * 100_000}}, "body"),
        ({"files": {"file": ("a.txt", b"W")}, "data": {"contentType": "x/y"}}, "body.contentType"),
        ({"files": {"file": ("\u200b", b"W", "text/plain")}}, "body.title"),
        ({"files": [("file", ("a.txt", b"1")), ("file", ("b.txt", b"2"))]}, "body"),
        ({"data": {"title": "A form of the other kind"}}, "header.Content-Type"),
        ({"content": b"plain", "headers": {"Content-Type": "text/plain"}}, "header.Content-Type"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, "body"),
        ({"content": b'{"title": NaN}', "headers": {"Content-Type": "x/y+json"}}, "body.title"),
        ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, "body"),
        ({"content": b"\xff\xfe\x00", "headers": {"Content-Type": "application/json"}}, "body"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "body"),
        (
            {
                "content": b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--x--",
                "headers": {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"},
            },
            "body",
        ),
        ({"content": b"", "headers": {"Content-Type": "application/json"}}, "body"),
        ({"json": {"title": "T", "content": ""}}, "body.content"),
        ({"json": {"title": "T", "content": "a\x00b"}}, "body.content"),
        ({"json": {"title": "T"}}, "body.content"),
        ({"json": {"content": "C"}}, "body.title"),
        ({"json": {"title": "", "content": "C"}}, "body.title"),
        ({"json": {"title": "T", "content": "C", "owner": "me"}}, "body.owner"),
        ({"json": {"title": "T", "content": "C", "contentType": "application/pdf"}}, None),
    ],
)
async def test_an_invalid_document_body_is_rejected_with_the_path_of_the_problem(
    user: ApiUser, form: dict[str, object], path: str | None
) -> None:
    response = await user.request("POST", "/knowledge", **form)  # type: ignore[arg-type]

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "VALIDATION_ERROR"), response.text
    assert path is None or path in {problem["path"] for problem in error["details"]}
    assert await titles(user) == []


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("text/plain; charset=latin-1", "Grüße".encode("latin-1")),
        ("text/plain; charset=Windows-1252", "Grüße".encode("cp1252")),
        ("text/plain; charset=utf-16", "Grüße".encode("utf-16")),
        ('text/markdown; charset="UTF-8"', "\ufeffGrüße".encode()),
        ("text/plain", "Grüße".encode()),
        ("text/plain; charset=iso-8859-1", "\ufeffGrüße".encode()),
        ("text/html; charset=koi8-r", "<meta charset=latin-1><p>Привет".encode("koi8-r")),
        ("text/html; charset=utf-8", "<meta charset=latin-1><p>Grüße".encode()),
        ("application/pdf; charset=utf-16", documents.pdf("Greetings")),
    ],
)
async def test_a_text_is_decoded_with_its_declared_charset(
    user: ApiUser, said: str, source: bytes
) -> None:
    response = await upload(user, ("greeting", source, said))

    assert response.status_code == 201, response.text
    version = await ingested(user, response.json()["data"]["id"])
    assert version["content"] in {"Grüße", "Привет", "Greetings"}


@pytest.mark.parametrize(
    ("said", "source", "message"),
    [
        ("text/plain; charset=klingon", b"Words.", "Unknown charset."),
        ("text/plain; charset=idna", b"Words.", "Unknown charset."),
        ("text/plain; charset=hex", b"Words.", "Unknown charset."),
        ("text/plain; charset=ascii", b"\xff", "The file doesn't match its charset."),
        (
            "text/plain; charset=windows-1252",
            "Сегодня хорошая погода, и мы пойдём гулять в парк с друзьями.".encode("koi8-r"),
            "The file doesn't match its charset.",
        ),
        ("text/html; charset=utf-8", b"\xff", "The file doesn't match its charset."),
    ],
)
async def test_an_impossible_charset_is_rejected(
    user: ApiUser, said: str, source: bytes, message: str
) -> None:
    response = await upload(user, ("greeting", source, said))

    assert response.status_code == 400
    assert response.json()["error"]["details"] == [{"path": "body.file", "message": message}]
    assert await titles(user) == []


async def test_a_text_of_an_unclear_charset_says_what_to_send(user: ApiUser) -> None:
    response = await upload(user, ("greeting.txt", "Grüße".encode("cp1252")))

    failed = await ingested(user, response.json()["data"]["id"])
    assert failed["problem"] == (
        "The document isn't valid UTF-8, and its charset is unclear. Upload it with its charset, "
        "e.g. `Content-Type: text/plain; charset=windows-1252`."
    )


async def test_a_guessed_charset_is_named(user: ApiUser) -> None:
    text = "Все люди рождаются свободными и равными в своём достоинстве и правах. " * 5

    response = await upload(user, ("greeting.txt", text.encode("cp1251")))

    version = await ingested(user, response.json()["data"]["id"])
    assert (version["status"], version["content"]) == ("ready", text)
    assert version["problem"] == (
        "The text was read as windows-1251, by what it looks like. If letters are wrong, upload it "
        "with its charset."
    )


async def test_a_pdf_with_some_garbled_pages_is_ready_and_says_so(user: ApiUser) -> None:
    right = "All human beings are born free and equal in dignity and rights."
    wrong = "Doo kxpdq ehlqjv duh eruq iuhh dqg htxdo lq gljqlwb dqg uljkwv."
    pages = [right] * 500 + [wrong] * 65

    response = await upload(user, ("manual.pdf", documents.pdf(*pages)))

    version = await ingested(user, response.json()["data"]["id"])
    assert version["status"] == "ready"
    assert version["problem"].startswith("Parts of the text are garbled")


async def test_a_garbled_pdf_is_not_ready(user: ApiUser) -> None:
    wrong = documents.pdf(*["Doo kxpdq ehlqjv duh eruq iuhh dqg htxdo lq gljqlwb dqg uljkwv."] * 9)

    response = await upload(user, ("manual.pdf", wrong))

    failed = await ingested(user, response.json()["data"]["id"])
    assert (failed["status"], failed["passageCount"]) == ("failed", 0)
    assert failed["problem"].startswith("The document's text is garbled")


async def test_a_lone_surrogate_in_a_body_is_refused(user: ApiUser) -> None:
    response = await user.request(
        "POST",
        "/knowledge",
        content=b'{"title": "T", "content": "\\ud800"}',
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["path"] == "body.content"


async def test_a_document_may_be_larger_than_other_bodies(user: ApiUser) -> None:
    content = "Ten words. " * 100_000

    as_string = await user.request("POST", "/knowledge", json={"title": "T", "content": content})
    as_file = await upload(user, ("a.txt", content.encode()))
    elsewhere = await user.request("POST", "/chats", json={"title": content})

    statuses = [response.status_code for response in (as_string, as_file, elsewhere)]
    assert statuses == [201, 201, 413]
    for response in (as_string, as_file):
        await ingested(user, response.json()["data"]["id"])


@pytest.mark.parametrize("is_declared", [True, False])
async def test_an_upload_of_50_mib_is_refused(user: ApiUser, *, is_declared: bool) -> None:
    sent = 0

    async def pieces() -> object:
        nonlocal sent
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for piece in (head.ljust(65_536, b"x"), *[b"x" * 65_536] * 799):
            sent += len(piece)
            yield piece

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    if is_declared:
        headers["Content-Length"] = str(FIFTY_MIB)
    try:
        response = await user.request("POST", "/knowledge", content=pieces(), headers=headers)
    except httpx.WriteError:
        # The answer came, and the connection went, while this was still being sent.
        assert sent < FIFTY_MIB
        return

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"


async def test_a_document_just_over_the_limit_is_refused_and_one_at_it_is_not(
    user: ApiUser,
) -> None:
    at_limit = await upload(user, ("a.txt", b"x " * (TWENTY_MIB // 2)))
    beyond = await upload(user, ("a.txt", b"x " * (TWENTY_MIB // 2) + b"y"))

    assert at_limit.status_code == 201
    assert beyond.status_code == 413
    assert "20,971,520 bytes" in beyond.json()["error"]["message"]
    failed = await ingested(user, at_limit.json()["data"]["id"])
    assert "too much text" in failed["problem"]


async def test_uploading_requires_signing_in(stack: Stack) -> None:
    response = await stack.http.post("/knowledge", files={"file": ("a.txt", b"x" * 5_000_000)})

    assert response.status_code == 401


async def test_a_plan_may_allow_less_bytes_than_the_setting(user: ApiUser, stack: Stack) -> None:
    await allow(stack.inspection, user.id, max_document_bytes=10)

    answers = [
        await upload(user, ("a.txt", b"x" * 10)),
        await upload(user, ("a.txt", b"x" * 11)),
        await user.request("POST", "/knowledge", json={"title": "T", "content": "\u00e4" * 6}),
    ]

    assert [answer.status_code for answer in answers] == [201, 413, 413]


async def test_a_plans_document_limit_holds_under_concurrent_uploads(
    user: ApiUser, stack: Stack
) -> None:
    await allow(stack.inspection, user.id, max_documents=3)

    answers = await asyncio.gather(
        *(
            user.request("POST", "/knowledge", json={"title": str(number), "content": "C"})
            for number in range(8)
        )
    )

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] * 3 + [403] * 5
    refused = next(answer for answer in answers if answer.status_code == 403)
    assert refused.json()["error"]["code"] == "FORBIDDEN"
    assert "allows 3 documents" in refused.json()["error"]["message"]
    assert len(await titles(user)) == 3
