"""Owns documents as clients see and send them: their versions, their ingestion, who finds them."""

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from schema.ids import DocumentId, UserId
from schema.wire import (
    ChangeModel,
    FilterModel,
    RequestModel,
    StorableText,
    Timestamp,
    VersionedModel,
    VisibleText,
    WireModel,
)

TextType: TypeAlias = Literal["text/plain", "text/markdown", "text/html"]
"""What can be sent as a string."""

DocumentType: TypeAlias = Literal[TextType, "application/pdf"]
"""What can be sent as a file."""


class PublicationStatus(StrEnum):
    """Whether others find a document."""

    DRAFT = "draft"
    PUBLISHED = "published"


class IngestionStatus(StrEnum):
    """How far a version is on its way to being found."""

    PENDING = "pending"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class Ingestion(WireModel):
    """What has become of a version; `problem` says why it failed."""

    status: IngestionStatus
    problem: str | None
    passage_count: int
    embedded_count: int


class Document(VersionedModel):
    """A document; to those who do not own it, its published version is the latest there is.

    `version` counts the changes of the document, `latest_version` its texts, and `ingestion` is
    about the latest of these.
    """

    id: DocumentId
    title: str
    status: PublicationStatus
    own: bool = Field(description="Whether it belongs to the caller.")
    content_type: str
    latest_version: int
    published_version: int | None
    ingestion: Ingestion
    created_at: Timestamp
    updated_at: Timestamp


class OwnedDocument(Document):
    """A document as administrators see it."""

    user_id: UserId


class DocumentVersion(Ingestion):
    """One version of a document; what was sent with it never changes."""

    document_id: DocumentId
    number: int
    content_type: str
    published: bool
    created_at: Timestamp
    finished_at: Timestamp | None


class DocumentText(DocumentVersion):
    """A version with its text, which is null until it has been extracted."""

    content: str | None


class DocumentSort(StrEnum):
    """The orders of a list of documents; a minus puts the largest first."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    UPDATED = "updatedAt"
    UPDATED_LAST = "-updatedAt"
    TITLE = "title"
    TITLE_LAST = "-title"


class DocumentScope(StrEnum):
    """Whose documents are listed: the caller's own, or what anybody has published."""

    OWN = "own"
    PUBLISHED = "published"


SearchedTitle = Annotated[StorableText, Field(min_length=1, max_length=200)]


class DocumentFilter(FilterModel):
    """Which documents are listed."""

    scope: DocumentScope = DocumentScope.OWN
    status: PublicationStatus | None = None
    search: SearchedTitle | None = Field(None, description="Words in the title.")


class OwnedDocumentFilter(FilterModel):
    """Which documents of all users are listed."""

    status: PublicationStatus | None = None
    user_id: UserId | None = Field(None, description="Only those of this user.")
    search: SearchedTitle | None = Field(None, description="Words in the title.")


DocumentTitle = Annotated[
    VisibleText, Field(min_length=1, max_length=200, examples=["Returns policy"])
]
# As long as a document may be: the limit is a setting and a plan's, checked where it is read.
DocumentContent = Annotated[
    StorableText, Field(min_length=1, examples=["Goods can be returned within 30 days."])
]


class CreateDocumentRequest(RequestModel):
    """A new document, as a string."""

    title: DocumentTitle
    content: DocumentContent
    content_type: TextType = "text/plain"


class CreateVersionRequest(RequestModel):
    """A new version of a document, as a string."""

    content: DocumentContent
    content_type: TextType = "text/plain"


class VersionFields(RequestModel):
    """What a form may say of the file of a new version."""

    content_type: DocumentType | None = None


class DocumentFields(VersionFields):
    """What a form may say of the file of a new document; its name is the title otherwise."""

    title: DocumentTitle | None = None


class ChangeDocumentRequest(ChangeModel):
    """A new title."""

    title: DocumentTitle


class PublishDocumentRequest(RequestModel):
    """Which version others are to find; the latest unless an older one is named."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
