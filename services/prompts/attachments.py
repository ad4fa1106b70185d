"""Attachments in a prompt: images and PDFs by reference, text files as marked data.

Each is sent again with every later turn, by the same blocks, until the window or the limits of a
request leave it out; what has been deleted since is named as deleted.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from schema.files import IMAGE_TYPES, PDF_TYPE, Attachment
from schema.ids import FileId
from services.models.request_bodies import StoredContent
from services.prompts.quotes import as_attribute

MOST_BYTES: Final = 21 * 1024 * 1024
"""The most bytes of files in one request: as base64 below the 32 MB of the Messages API."""

MOST_IMAGES: Final = 100
MOST_PAGES: Final = 100
_PARTS: Final = 8
"""What is too much is left out by eighths: so the next requests mostly leave out the same."""

_DELETED: Final = "[attachment deleted]"
_LEFT_OUT: Final = "[attachment left out: {}]"


def attached(where: str) -> str:
    """Return the SQL of what is attached where the condition on `attachments` holds, as JSON."""
    return f"""(
    SELECT jsonb_agg(jsonb_build_object(
        'file_id', attachments.file_id, 'name', attachments.name,
        'content_type', attachments.content_type, 'position', attachments.position,
        'deleted', files.id IS NULL, 'storage', files.storage, 'text', files.text,
        'media_type', coalesce(files.model_type, files.content_type),
        'rendered', files.model_type IS NOT NULL,
        'bytes', coalesce(files.model_size, files.size, 0),
        'pages', coalesce(files.pages, 0), 'tokens', coalesce(files.tokens, 0)
    ) ORDER BY attachments.position)
    FROM attachments LEFT JOIN files ON files.id = attachments.file_id
    WHERE {where})"""  # noqa: S608 -- the condition is a constant of ours


def read_attachments(column: list[dict[str, Any]] | None) -> tuple[Attachment, ...]:
    """Return what the SQL of `attached` has found."""
    return tuple(Attachment.model_validate(found) for found in column or ())


def is_sent_as_file(attachment: Attachment) -> bool:
    """Whether models get it as an image or a PDF, and not as text."""
    return not attachment.deleted and attachment.text is None


def too_many(attachments: Sequence[Attachment], *, takes_files: bool = True) -> frozenset[FileId]:
    """Return the files that are left out of a request, the oldest first, by its limits.

    Shapes: `attachments` in the order of the conversation. `takes_files` is false for a model that
    takes texts alone.
    """
    files = [attachment for attachment in attachments if is_sent_as_file(attachment)]
    if not takes_files:
        return frozenset(file.file_id for file in files)
    measures = (
        (MOST_BYTES, [file.bytes for file in files]),
        (MOST_IMAGES, [int(file.content_type in IMAGE_TYPES) for file in files]),
        (MOST_PAGES, [file.pages for file in files]),
    )
    count = max((_too_old(sizes, limit) for limit, sizes in measures), default=0)
    # A file that is attached again later stays where it is newest.
    kept = {file.file_id for file in files[count:]}
    return frozenset(file.file_id for file in files[:count]) - kept


def _too_old(sizes: Sequence[int], limit: int) -> int:
    """Return how many of the oldest don't fit."""
    over = sum(sizes) - limit
    if over <= 0:
        return 0
    part = max(1, limit // _PARTS)
    to_cut, count = -(-over // part) * part, 0
    while to_cut > 0 and count < len(sizes):
        to_cut -= sizes[count]
        count += 1
    return count


def attachment_blocks(attachments: Iterable[Attachment]) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a message's attachments, which stand before its text."""
    for attachment in attachments:
        name = as_attribute(attachment.name)
        if attachment.deleted:
            yield _text(_DELETED)
        elif attachment.left_out:
            yield _text(_LEFT_OUT.format(name))
        elif attachment.text is not None:
            yield _text(f'<attachment name="{name}">\n{attachment.text}\n</attachment>')
        elif attachment.content_type == PDF_TYPE:
            yield {"type": "document", "source": _source(attachment), "title": name}
        else:
            yield _text(f'The image "{name}":')
            yield image_block(attachment)


def image_block(attachment: Attachment) -> dict[str, Any]:
    """Return the block of an image."""
    return {"type": "image", "source": _source(attachment)}


def _source(attachment: Attachment) -> dict[str, Any]:
    content = StoredContent.of(
        attachment.file_id,
        size=attachment.bytes,
        storage=attachment.storage or "postgres",
        variant="model" if attachment.rendered else "original",
    )
    return {"type": "base64", "media_type": attachment.media_type, "data": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
