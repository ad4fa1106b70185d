"""What of attached files a request holds, and how it is sent."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schema.files import Attachment
from schema.ids import FileId, new_id
from services.models.request_bodies import (
    ContentUnavailableError,
    StoredContent,
    StreamedBody,
)
from services.prompts.attachments import MOST_BYTES, too_many


def image(size: int = 10) -> Attachment:
    return Attachment(file_id=FileId(new_id()), name="a.png", content_type="image/png", bytes=size)


def pages(count: int) -> Attachment:
    return Attachment(
        file_id=FileId(new_id()), name="a.pdf", content_type="application/pdf", pages=count
    )


@pytest.mark.parametrize(
    ("files", "left_out"),
    [
        ([image() for _ in range(100)], 0),
        ([image() for _ in range(101)], 12),
        ([image() for _ in range(112)], 12),
        ([image(MOST_BYTES // 2) for _ in range(3)], 1),
        ([pages(60), pages(40)], 0),
        ([pages(60), pages(41)], 1),
    ],
)
def test_the_oldest_are_left_out_by_eighths_of_a_limit(
    files: list[Attachment], left_out: int
) -> None:
    assert too_many(files) == {file.file_id for file in files[:left_out]}


def test_a_model_that_takes_texts_alone_gets_no_image() -> None:
    text = image().model_copy(update={"text": "words", "content_type": "text/plain"})
    files = [image(), text]

    assert too_many(files, takes_files=False) == {files[0].file_id}


def body_of(*contents: StoredContent) -> dict[str, Any]:
    sources = [{"type": "base64", "data": content} for content in contents]
    images = [{"type": "image", "source": source} for source in sources]
    result = {"type": "tool_result", "content": [{"type": "text", "text": "é"}, *images[1:]]}
    return {"model": "m", "messages": [{"role": "user", "content": [*images[:1], result]}]}


async def test_a_body_is_the_json_with_the_files_in_their_places() -> None:
    data = {bytes(range(256)) * 7: (100, 3), b"ab": (1,), b"": ()}
    contents = [
        StoredContent.of(new_id(), size=len(each), storage="postgres", variant="model")
        for each in data
    ]
    by_id = dict(zip([content.file_id for content in contents], data, strict=True))

    async def read(content: StoredContent) -> AsyncIterator[bytes]:
        held = by_id[content.file_id]
        for start in range(0, len(held), 100):
            yield held[start : start + 100]

    streamed = StreamedBody(body_of(*contents), read)
    sent = b"".join([piece async for piece in streamed])

    assert len(sent) == streamed.size
    encoded = [StoredContent(b64encode(each).decode()) for each in data]
    assert json.loads(sent) == body_of(*encoded)


async def test_a_file_that_is_shorter_than_it_was_breaks_the_request() -> None:
    content = StoredContent.of(new_id(), size=5, storage="postgres", variant="model")

    async def read(_: StoredContent) -> AsyncIterator[bytes]:
        yield b"four"

    with pytest.raises(ContentUnavailableError) as raised:
        _ = [piece async for piece in StreamedBody(body_of(content), read)]
    assert raised.value.lost == content.file_id
