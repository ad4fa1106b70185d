"""What a model reads of MCP tools' results: bounded, storable, and only supported content."""

import struct
from base64 import b64encode
from typing import Any

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from services.mcp.results import (
    MAX_CHARS,
    MAX_IMAGE_BYTES,
    MAX_IMAGES,
    Image,
    outcome_of,
    read_image,
)
from tests.fakes.mcp_tools import png


def result(*content: Any, **more: Any) -> CallToolResult:  # noqa: ANN401 -- of many types
    return CallToolResult(content=list(content), **more)


def image(data: bytes, kind: str = "image/png") -> ImageContent:
    return ImageContent(data=b64encode(data).decode(), mime_type=kind)


def test_texts_are_joined_and_without_blocks() -> None:
    outcome = outcome_of(result(TextContent(text="a"), TextContent(text="b")))

    assert (outcome.output, outcome.blocks) == ("a\nb", ())


def test_an_empty_result_is_reported_as_no_output() -> None:
    assert outcome_of(result()).output == "The tool returned no output."
    assert outcome_of(result(TextContent(text=""))).output == "The tool returned no output."


def test_unstorable_characters_are_replaced() -> None:
    assert outcome_of(result(TextContent(text="a\x00b\ud800"))).output == "a\ufffdb\ufffd"


def test_text_is_bounded() -> None:
    outcome = outcome_of(result(*[TextContent(text="x" * 300_000)] * 3))

    assert len(outcome.output) <= MAX_CHARS + 2


@pytest.mark.parametrize(
    ("texts", "structured"),
    [
        (['{"a": 1}'], {"a": 1}),
        (["hello"], {"result": "hello"}),
        (["7"], {"result": 7}),
        (["a", "b"], {"result": ["a", "b"]}),
        (["1", "2"], {"result": [1, 2]}),
        (["# Title\n\ntext\n"], {"content": "# Title\n\ntext"}),
        (
            ['[\n  {\n    "name": "Ada",\n    "n": 1.0\n  }\n]'],
            {"entities": [{"n": 1, "name": "Ada"}]},
        ),
        (["first", "second"], {"content": "first\nsecond"}),
    ],
)
def test_structured_content_already_in_the_text_is_not_repeated(
    texts: list[str], structured: dict[str, object]
) -> None:
    pieces = [TextContent(text=text) for text in texts]

    assert outcome_of(result(*pieces, structured_content=structured)).output == "\n".join(texts)


@pytest.mark.parametrize(
    ("texts", "structured", "expected"),
    [
        (
            ["Deleted."],
            {"success": True, "message": "Deleted."},
            '{"success":true,"message":"Deleted."}',
        ),
        (["a", "b"], {"found": ["a", "b"], "n": 2}, '{"found":["a","b"],"n":2}'),
        (["Deleted."], {"success": True}, 'Deleted.\n{"success":true}'),
        (["1"], {"result": True}, '1\n{"result":true}'),
        (["Found 2."], {"found": ["a"]}, 'Found 2.\n{"found":["a"]}'),
        (["a", "c"], {"found": ["a", "b"]}, 'a\nc\n{"found":["a","b"]}'),
        ([], {"found": []}, '{"found":[]}'),
        (["  "], {"found": []}, '  \n{"found":[]}'),
    ],
)
def test_text_and_structured_content_that_differ_are_kept_and_nothing_is_said_twice(
    texts: list[str], structured: dict[str, object], expected: str
) -> None:
    pieces = [TextContent(text=text) for text in texts]

    assert outcome_of(result(*pieces, structured_content=structured)).output == expected


def test_an_image_repeated_as_structured_content_is_not_given_as_base64() -> None:
    block = image(png())
    structured = {"content": [{"type": "image", "data": block.data, "mimeType": "image/png"}]}

    outcome = outcome_of(result(block, structured_content=structured))

    assert outcome.output == f"(Image: image/png, {len(png()):,} bytes)"


def test_structured_content_missing_from_the_text_is_added() -> None:
    outcome = outcome_of(
        result(TextContent(text="Found 2."), structured_content={"cities": ["Köln", None]})
    )

    assert outcome.output == 'Found 2.\n{"cities":["Köln",null]}'


def test_deeply_nested_text_does_not_fail() -> None:
    deep = "[" * 100_000

    assert outcome_of(result(TextContent(text=deep), structured_content={"a": 1})).output


def test_images_are_blocks_in_their_places() -> None:
    outcome = outcome_of(result(TextContent(text="a"), image(png()), TextContent(text="b")))

    kinds = [block["type"] for block in outcome.blocks]
    assert kinds == ["text", "image", "text"]
    assert outcome.output.startswith("a\n(Image: image/png, ")


def test_no_more_images_are_shown_than_allowed() -> None:
    outcome = outcome_of(result(*[image(png())] * (MAX_IMAGES + 2)))

    kinds = [block["type"] for block in outcome.blocks]
    assert kinds == ["image"] * MAX_IMAGES + ["text"] * 2


def test_an_image_type_is_detected_from_its_bytes() -> None:
    outcome = outcome_of(result(image(png(), "image/jpeg")))

    assert outcome.blocks[0]["source"]["media_type"] == "image/png"


@pytest.mark.parametrize(
    "data",
    [
        "not base64!",
        "",
        b64encode(b"<svg/>").decode(),
        b64encode(b"\x89PNG\r\n\x1a\n").decode(),
        b64encode(b"\xff\xd8\xff").decode(),
        b64encode(b"\xff\xd8\xff\xe0\x00\x00" * 3).decode(),
        b64encode(b"RIFF\x00\x00\x00\x00WEBPVP8X").decode(),
        b64encode(png(1, 1)[:16] + struct.pack(">II", 0, 5)).decode(),
        b64encode(png(1, 1)[:16] + struct.pack(">II", 9_000, 5)).decode(),
        "A" * (MAX_IMAGE_BYTES * 2),
        "ü",
    ],
)
def test_data_that_is_not_an_image_is_omitted_with_a_note(data: str) -> None:
    outcome = outcome_of(result(ImageContent(data=data, mime_type="image/png")))

    assert outcome.blocks == ()
    assert outcome.output.startswith("(Image omitted: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"GIF89a" + struct.pack("<HH", 3, 4), "image/gif"),
        (b"\xff\xd8\xff\xe0\x00\x02\xff\xc0\x00\x11\x08\x00\x04\x00\x03", "image/jpeg"),
        (b"RIFF....WEBPVP8 " + bytes(10) + struct.pack("<HH", 3, 4), "image/webp"),
        (b"RIFF....WEBPVP8L" + bytes(14), "image/webp"),
        (b"RIFF....WEBPVP8X" + bytes(14), "image/webp"),
    ],
)
def test_all_image_types_that_a_model_accepts_are_recognised(content: bytes, expected: str) -> None:
    found = read_image(b64encode(content).decode())

    assert isinstance(found, Image)
    assert found.media_type == expected


def test_content_that_a_model_cannot_take_is_described() -> None:
    outcome = outcome_of(
        result(
            AudioContent(data="AAAA", mime_type="audio/wav"),
            EmbeddedResource(resource=TextResourceContents(uri="mem:///a", text="inside")),
            EmbeddedResource(
                resource=BlobResourceContents(
                    uri="mem:///b", blob="AAAA", mime_type="application/zip"
                )
            ),
        )
    )

    assert outcome.output.splitlines() == [
        "(Audio omitted: audio/wav, 3 bytes.)",
        "Resource mem:///a:",
        "inside",
        "(Resource omitted: mem:///b, application/zip, 3 bytes.)",
    ]


def test_an_image_among_resources_is_shown() -> None:
    blob = b64encode(png()).decode()
    resource = BlobResourceContents(uri="mem:///b", blob=blob, mime_type="image/png")

    assert outcome_of(result(EmbeddedResource(resource=resource))).blocks[0]["type"] == "image"


def test_more_pieces_than_anybody_reads_are_counted() -> None:
    outcome = outcome_of(result(*[TextContent(text="x")] * 600))

    assert outcome.output.endswith("(100 more content blocks omitted.)")


def test_an_error_stays_an_error() -> None:
    assert outcome_of(result(TextContent(text="no"), is_error=True)).is_error
