"""Files: checked by their content, served safely, swept and bounded."""

import asyncio
from typing import Any
from uuid import UUID

import httpx

from services.files.store import PIECE_BYTES
from tests.fixtures.api_user import ApiUser
from tests.fixtures.images import encoded, noise
from tests.fixtures.plans import allow
from tests.fixtures.stack import Stack


async def upload(
    user: ApiUser, data: bytes, *, name: str = "file", kind: str | None = None, **headers: str
) -> httpx.Response:
    return await user.request("POST", "/files", files={"file": (name, data, kind)}, headers=headers)


async def uploaded(user: ApiUser, data: bytes, **said: str) -> dict[str, Any]:
    response = await upload(user, data, **said)
    assert response.status_code == 201, response.text
    file: dict[str, Any] = response.json()["data"]
    return file


async def test_an_image_larger_than_a_piece_is_read_back_in_whole_and_in_ranges(
    user: ApiUser,
) -> None:
    data = encoded(noise(700, 500), "PNG")
    assert len(data) > 2 * PIECE_BYTES

    file = await uploaded(user, data, name="../Ünïcode \u202eimage.png", kind="image/png")

    assert (file["contentType"], file["width"], file["height"]) == ("image/png", 700, 500)
    assert (file["size"], file["origin"], file["attached"]) == (len(data), "upload", False)
    assert file["name"] == "Ünïcode image.png"
    path = f"/files/{file['id']}/content"
    whole = await user.request("GET", path)
    assert whole.content == data
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-security-policy"].startswith("sandbox;")
    assert whole.headers["content-disposition"].startswith("attachment; ")
    tag = whole.headers["etag"]
    for asked, status, found in (
        ({"Range": "bytes=10-19"}, 206, data[10:20]),
        (
            {"Range": f"bytes={PIECE_BYTES - 2}-{PIECE_BYTES + 1}"},
            206,
            data[PIECE_BYTES - 2 : PIECE_BYTES + 2],
        ),
        ({"Range": "bytes=-5"}, 206, data[-5:]),
        ({"Range": f"bytes={len(data)}-"}, 200, data),
        ({"Range": "bytes=0-1,4-5"}, 200, data),
        ({"Range": "bytes=0-1", "If-Range": '"another"'}, 200, data),
        ({"If-None-Match": tag}, 304, b""),
    ):
        part = await user.request("GET", path, headers=asked)
        assert (part.status_code, part.content) == (status, found), asked
    assert [each["id"] for each in (await user.request("GET", "/files")).json()["data"]] == [
        file["id"]
    ]


async def test_a_file_that_lies_about_its_type_is_refused_and_leaves_nothing(
    user: ApiUser,
) -> None:
    response = await upload(user, b"<script>alert(1)</script>", name="a.png", kind="image/png")

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "VALIDATION_ERROR")
    assert error["details"][0]["path"] == "body.file"
    assert "doesn't match" in error["message"]
    assert (await user.request("GET", "/files")).json()["data"] == []


async def test_a_text_in_another_charset_is_served_as_it_was_uploaded(user: ApiUser) -> None:
    data = "Grüße".encode("cp1252")

    file = await uploaded(user, data, kind="text/html; charset=windows-1252")

    content = await user.request("GET", f"/files/{file['id']}/content")
    assert (content.content, content.headers["content-type"]) == (data, "text/plain")


async def test_a_file_above_the_limits_of_the_plan_is_refused(user: ApiUser, stack: Stack) -> None:
    await allow(stack.inspection, user.id, max_files=2, max_file_bytes=1_000, max_stored_bytes=900)

    assert (await upload(user, b"x" * 1_001)).json()["error"]["code"] == "PAYLOAD_TOO_LARGE"
    await uploaded(user, b"x" * 500)
    full = await upload(user, b"x" * 500)
    assert (full.status_code, full.json()["error"]["code"]) == (403, "FORBIDDEN")
    await uploaded(user, b"y" * 300)
    assert "2 files" in (await upload(user, b"z")).json()["error"]["message"]


async def test_an_upload_sent_again_is_stored_once(user: ApiUser) -> None:
    key = {"Idempotency-Key": "the same"}
    first, again = [await upload(user, b"A note.", **key) for _ in range(2)]
    other = await upload(user, b"Another note.", **key)

    assert first.json()["data"] == again.json()["data"]
    assert other.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    file = first.json()["data"]["id"]
    await user.request("DELETE", f"/files/{file}")
    assert (await upload(user, b"A note.", **key)).json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"


async def test_twenty_uploads_at_once_are_stored(user: ApiUser) -> None:
    texts = [f"{number} " * (8_000 if number % 5 else 100_000) for number in range(20)]

    responses = await asyncio.gather(*(upload(user, text.encode()) for text in texts))

    assert {response.status_code for response in responses} == {201}


async def test_a_file_that_no_message_names_is_swept(user: ApiUser, stack: Stack) -> None:
    old, new = await uploaded(user, b"old"), await uploaded(user, b"new")
    await stack.inspection.execute(
        "UPDATE files SET created_at = now() - interval '25 hours' WHERE id = $1", UUID(old["id"])
    )
    assert await stack.activities.sweep._files.is_any_due()

    await stack.activities.sweep.sweep_files()

    kept = (await user.request("GET", "/files")).json()["data"]
    assert [file["id"] for file in kept] == [new["id"]]
    pieces = "SELECT count(*) FROM file_pieces WHERE file_id = $1"
    assert await stack.inspection.value(pieces, UUID(old["id"])) == 0
