"""Documents as clients see and send them: versions, ingestion, publication."""

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
    """Whether other users find a document."""

    DRAFT = "draft"
    PUBLISHED = "published"


class IngestionStatus(StrEnum):
    """The status of a version's ingestion."""

    PENDING = "pending"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class Ingestion(WireModel):
    """A version's ingestion.

    `problem` is why it failed, or what may be wrong with the text of a version that is ready: a
    guessed charset, garbled parts.
    """

    status: IngestionStatus
    problem: str | None
    passage_count: int
    embedded_count: int


class Document(VersionedModel):
    """A document. To users who don't own it, the published version is the latest one.

    `version` counts changes of the document, `latestVersion` those of its text; `ingestion` is that
    of the latest version.
    """

    id: DocumentId
    title: str
    status: PublicationStatus
    own: bool = Field(description="Whether the document belongs to the caller.")
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
    """One version of a document, which never changes."""

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
    """The sort orders of a list of documents; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    UPDATED = "updatedAt"
    UPDATED_LAST = "-updatedAt"
    TITLE = "title"
    TITLE_LAST = "-title"


class DocumentScope(StrEnum):
    """Whether to list the caller's own documents, or all published ones."""

    OWN = "own"
    PUBLISHED = "published"


SearchedTitle = Annotated[StorableText, Field(min_length=1, max_length=200)]


class DocumentFilter(FilterModel):
    """Filters for a list of documents."""

    scope: DocumentScope = DocumentScope.OWN
    status: PublicationStatus | None = None
    search: SearchedTitle | None = Field(None, description="Filter by words in the title.")


class OwnedDocumentFilter(FilterModel):
    """Filters for a list of all users' documents."""

    status: PublicationStatus | None = None
    user_id: UserId | None = Field(None, description="Filter by owner.")
    search: SearchedTitle | None = Field(None, description="Filter by words in the title.")


DocumentTitle = Annotated[
    VisibleText, Field(min_length=1, max_length=200, examples=["Returns policy"])
]
# No maximum here: the settings and the plan set it, and it is checked when the body is read.
DocumentContent = Annotated[
    StorableText, Field(min_length=1, examples=["Goods can be returned within 30 days."])
]


class CreateDocumentRequest(RequestModel):
    """A new document as text."""

    title: DocumentTitle
    content: DocumentContent
    content_type: TextType = "text/plain"


class CreateVersionRequest(RequestModel):
    """A new version of a document as text."""

    content: DocumentContent
    content_type: TextType = "text/plain"


class VersionFields(RequestModel):
    """Form fields for a new version."""

    content_type: DocumentType | None = None


class DocumentFields(VersionFields):
    """Form fields for a new document; the title is the file's name by default."""

    title: DocumentTitle | None = None


class ChangeDocumentRequest(ChangeModel):
    """A new title."""

    title: DocumentTitle


class PublishDocumentRequest(RequestModel):
    """The version to publish; the latest by default."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
