"""Images: what they are, and their rendition for models. Runs in `inspection_process.py` alone.

A model gets pixels that we have encoded, never the bytes that were uploaded: nothing that hides
beside them, no place where a photo was taken, and nothing that a provider refuses.
"""

from io import BytesIO
from math import ceil
from typing import Any, Final

from PIL import Image, ImageFile, ImageOps
from PIL.ExifTags import Base

from services.files.inspection import FileLimits, FileRefusal, Inspection

_FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
_TYPES: Final = {
    **{form: f"image/{form.lower()}" for form in _FORMATS},
    # Several pictures in one file, as some phones write them: a JPEG to everything else.
    "MPO": "image/jpeg",
}

LONGEST_SIDE: Final = 2_000
"""The longest side of a rendition in pixels.

The Messages API takes no more in a request of many images; most models see no more than 1,568.
"""

LARGEST_RENDITION: Final = 3_600_000
"""The most bytes of a rendition: as base64 below the 5 MB that the Messages API takes."""

_TURNED: Final = {5, 6, 7, 8}
"""The orientations in EXIF that swap width and height."""

_LARGEST_PNG: Final = 1_500_000
_QUALITIES: Final = (88, 75, 60, 40)
_PATCH: Final = 28
_MOST_TOKENS: Final = 4_784


def image_tokens(width: int, height: int) -> int:
    """Return how many tokens a model counts for an image, at most; about width * height / 750."""
    return min(ceil(width / _PATCH) * ceil(height / _PATCH), _MOST_TOKENS)


def inspect_image(data: bytes, limits: FileLimits) -> tuple[Inspection, bytes]:
    """Return what an image is, and its rendition. Errors: MemoryError."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None  # checked below, before anything is decoded
    try:
        # Pillow raises nearly anything for a broken file; none of it is ours to fix.
        image: Any = Image.open(BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height > limits.pixels:
            return Inspection(refusal=FileRefusal.TOO_MANY_PIXELS), b""
        content_type = _TYPES[image.format]
        if getattr(image, "n_frames", 1) > limits.frames:
            return Inspection(refusal=FileRefusal.TOO_MANY_FRAMES), b""
        image.seek(0)
        if content_type == "image/jpeg":
            # Decodes no more than is needed.
            image.draft(None, (LONGEST_SIDE, LONGEST_SIDE))
        image.load()
        is_turned = image.getexif().get(Base.Orientation, 1) in _TURNED
        small = _reduced(image)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 -- see above
        return Inspection(refusal=FileRefusal.BROKEN), b""
    model_type, rendition = _encoded(small, is_photo=content_type == "image/jpeg")
    return Inspection(
        content_type=content_type,
        width=height if is_turned else width,
        height=width if is_turned else height,
        tokens=image_tokens(*small.size),
        model_type=model_type,
    ), rendition


def _reduced(image: Any) -> Any:  # noqa: ANN401 -- an image of Pillow's
    """Return the picture as it is seen: upright, at most `LONGEST_SIDE` long."""
    if "transparency" in image.info or image.mode in {"LA", "PA", "La", "RGBa"}:
        image = image.convert("RGBA")
    elif image.mode not in {"RGB", "RGBA", "L"}:
        image = image.convert("RGB")
    if max(image.size) > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return ImageOps.exif_transpose(image)


def _encoded(image: Any, *, is_photo: bool) -> tuple[str, bytes]:  # noqa: ANN401 -- as above
    if not is_photo:
        encoded = _saved(image, "PNG")
        if len(encoded) <= _LARGEST_PNG:
            return "image/png", encoded
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    encoded = b""
    for quality in _QUALITIES:
        encoded = _saved(image, "JPEG", quality=quality)
        if len(encoded) <= LARGEST_RENDITION:
            break
    return "image/jpeg", encoded


def _saved(image: Any, form: str, **options: int) -> bytes:  # noqa: ANN401 -- as above
    encoded = BytesIO()
    # Its metadata stays behind.
    image.info = {}
    image.save(encoded, form, **options)
    return encoded.getvalue()
