"""Files as clients see them, and attachments as prompts and messages have them."""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from schema.ids import FileId
from schema.wire import Payload, RequestModel, StorableText, Timestamp, WireModel

IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
PDF_TYPE: Final = "application/pdf"
TEXT_TYPE: Final = "text/plain"

MOST_ATTACHMENTS: Final = 20
"""The most files of one message."""

ContentType = Literal[
    "image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "text/plain"
]


class FileOrigin(StrEnum):
    """Where a file is from."""

    UPLOAD = "upload"
    TOOL = "tool"


class FileSort(StrEnum):
    """The sort orders of a list of files; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"


class FileUploadFields(RequestModel):
    """The fields of an upload beside its file."""

    name: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=255, description="By default, the name of the file."),
    ] = None


class File(WireModel):
    """An uploaded file, or an image that a tool returned. Its content type is what was found."""

    id: FileId
    name: str
    content_type: ContentType
    size: int = Field(description="In bytes.")
    width: int | None = Field(None, description="Of an image, in pixels.")
    height: int | None = Field(None, description="Of an image, in pixels.")
    pages: int | None = Field(None, description="Of a PDF.")
    origin: FileOrigin
    attached: bool = Field(
        description="Whether a message has named it; others are deleted after a while."
    )
    created_at: Timestamp


class Attachment(Payload):
    """A file in a prompt: what its blocks are made of. It never holds an image or a PDF.

    `media_type` and `bytes` describe what models are sent, which is a rendition if it is
    `rendered`. `position` is the block's place in the result of a tool.
    """

    file_id: FileId
    name: str
    content_type: str
    position: int = 0
    deleted: bool = False
    left_out: bool = False
    storage: str | None = None
    media_type: str | None = None
    rendered: bool = False
    bytes: int = 0
    pages: int = 0
    tokens: int = 0
    text: str | None = None

    @property
    def is_left_out(self) -> bool:
        """Whether a request says no more of it than that it was attached."""
        return self.deleted or self.left_out
