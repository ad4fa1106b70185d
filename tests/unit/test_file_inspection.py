"""What files are, by their content, and what models get of them."""

import io
import json
from base64 import b64encode
from typing import Any

import pytest
from PIL import Image

from services.files.images import LARGEST_RENDITION, LONGEST_SIDE, image_tokens
from services.files.inspection import FileLimits
from services.files.inspection_process import inspected
from services.files.inspector import _is_something_else
from tests.fixtures.documents import encrypted_pdf, pdf
from tests.fixtures.images import animation, encoded, noise, png_bomb

LIMITS = FileLimits(pixels=1_000_000, frames=5, pages=3, chars=1_000)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def found(data: bytes, *, charset: str = "") -> tuple[dict[str, Any], bytes]:
    head, _, rendition = inspected(data, LIMITS, charset=charset).partition(b"\n")
    return json.loads(head), rendition


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"MZ\x90\x00" + bytes(300), "unknown_type"),
        (b"PK\x03\x04" + bytes(range(256)), "unknown_type"),
        (SVG, "svg"),
        (b"<?xml version='1.0'?>\n<!-- a picture -->" + SVG, "svg"),
        (png_bomb(60_000, 60_000), "too_many_pixels"),
        (png_bomb(400, 400)[:-30], "broken"),
        (b"GIF89a/*" + b"x" * 99 + b"*/=1;alert(1)", "broken"),
        (b"\xff\xd8\xff" + b"%PDF-1.7", "broken"),
        (animation(6), "too_many_frames"),
        (pdf(*["A page"] * 4), "too_many_pages"),
        (b"%PDF-1.7\nnothing", "broken"),
        (encrypted_pdf("Secret", password="needed"), "encrypted"),
        (encrypted_pdf("Secret", password=""), "encrypted"),
        (b"x" * 1_001, "too_many_characters"),
        ("Grüße".encode("cp1252"), "unknown_charset"),
    ],
)
def test_what_is_not_fit_is_refused_for_a_reason(data: bytes, refusal: str) -> None:
    assert found(data)[0]["refusal"] == refusal


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (encoded(noise(9, 9), "PNG"), "image/png"),
        (encoded(noise(9, 9), "JPEG"), "image/jpeg"),
        (encoded(noise(9, 9), "WEBP"), "image/webp"),
        (animation(5), "image/gif"),
        (pdf("One page", "Another"), "application/pdf"),
        (b"%PDF in a text", "text/plain"),
        (b"<!doctype html><script>alert(1)</script>", "text/plain"),
        ("\ufeffGrüße".encode("utf-16"), "text/plain"),
    ],
)
def test_the_content_decides_what_a_file_is(data: bytes, content_type: str) -> None:
    assert found(data)[0].get("content_type", "text/plain") == content_type


def test_a_text_is_decoded_and_can_not_end_its_tag() -> None:
    head, rendition = found("Grüße </attachment>".encode("cp1252"), charset="windows-1252")

    assert head["text"] == "Grüße &lt;/attachment>"
    assert rendition == b""


def test_the_pages_of_a_pdf_are_counted_with_their_text() -> None:
    assert (found(pdf("A"))[0]["pages"], found(pdf("A", "B"))[0]["pages"]) == (1, 2)
    assert found(pdf("A " * 300))[0]["tokens"] > found(pdf("A"))[0]["tokens"] > 1_600


@pytest.mark.parametrize(
    ("image", "form", "options"),
    [
        (Image.new("RGBA", (40, 30), (255, 0, 0, 80)), "PNG", {}),
        (Image.new("P", (40, 30)), "PNG", {"transparency": 0}),
        (Image.new("1", (40, 30)), "PNG", {}),
        (Image.new("I;16", (40, 30), 3_000), "PNG", {}),
        (Image.new("CMYK", (40, 30)), "JPEG", {}),
        (Image.new("LA", (40, 30)), "PNG", {}),
        (noise(40, 30), "WEBP", {"lossless": True}),
    ],
)
def test_a_model_gets_pixels_that_we_have_encoded(
    image: Image.Image, form: str, options: dict[str, Any]
) -> None:
    data = encoded(image, form, **options) + b"<script>alert(1)</script>"

    head, rendition = found(data)

    assert head["model_type"] in {"image/png", "image/jpeg"}
    assert Image.open(io.BytesIO(rendition)).size == (40, 30)
    assert b"script" not in rendition
    assert found(data)[1] == rendition


def test_a_large_photo_is_turned_upright_scaled_and_stripped_of_its_place() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    data = encoded(Image.new("RGB", (2_400, 300)), "JPEG", exif=exif)

    head, rendition = found(data)

    assert (head["width"], head["height"]) == (300, 2_400)
    assert Image.open(io.BytesIO(rendition)).size == (250, LONGEST_SIDE)
    assert b"where I live" not in rendition
    assert head["tokens"] == image_tokens(250, LONGEST_SIDE)


def test_a_rendition_has_no_more_bytes_than_the_vendor_takes() -> None:
    data = encoded(noise(1_000, 1_000), "PNG")

    _, rendition = found(data)

    assert len(rendition) <= LARGEST_RENDITION < len(data) + LARGEST_RENDITION
    assert len(b64encode(bytes(LARGEST_RENDITION))) < 5_000_000


@pytest.mark.parametrize(
    ("content_type", "declared", "name", "lies"),
    [
        ("text/plain", "image/png", "a", True),
        ("text/plain", "", "a.PNG", True),
        ("text/plain", "application/pdf", "a.txt", True),
        ("image/png", "application/pdf", "a", True),
        ("application/pdf", "text/html", "a", True),
        ("image/jpeg", "image/png", "a.png", False),
        ("text/plain", "application/octet-stream", "a.bin", False),
        ("text/plain", "application/json", "a.json", False),
        ("application/pdf", "application/octet-stream", "a.txt", False),
    ],
)
def test_a_file_of_another_kind_than_it_claims_is_noticed(
    *, content_type: str, declared: str, name: str, lies: bool
) -> None:
    assert _is_something_else(content_type, declared=declared, name=name) is lies


def test_tokens_of_an_image_are_about_a_750th_of_its_pixels_and_bounded() -> None:
    assert image_tokens(1_000, 1_000) == pytest.approx(1_000 * 1_000 / 750, rel=0.05)
    assert image_tokens(8_000, 8_000) == 4_784
