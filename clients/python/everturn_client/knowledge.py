"""What turns use: memories, documents and tools."""

from datetime import datetime
from typing import TypeAlias

from everturn_client import models
from everturn_client.calls import (
    UNSET,
    Call,
    Maybe,
    Upload,
    change,
    creation,
    creation_key,
    delete,
    fields,
    filters,
    get,
    listing,
    post,
)
from everturn_client.endpoints import Endpoint, Group, Listing, RunnerT

# In a class that has a method `list`, an annotation can't name the type.
MemoryHits: TypeAlias = list[models.MemoryHit]
KnowledgeHits: TypeAlias = list[models.KnowledgeHit]


class Memories(Group[RunnerT]):
    """Memories of the signed-in user."""

    @Endpoint
    def create(
        self,
        *,
        content: str,
        kind: str | None = None,
        importance: float | None = None,
        pinned: bool | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.Memory]:
        """Create a memory, or return the one with the same content."""
        body = filters(
            content=content, kind=kind, importance=importance, pinned=pinned, expires_at=expires_at
        )
        return creation(models.Memory, "memories", body=body, key=idempotency_key)

    @Listing
    def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        pinned: bool | None = None,
        expired: bool | None = None,
        search: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> Call[models.Memory]:
        """List memories, the latest first, `limit` on a page."""
        return listing(
            models.Memory,
            "memories",
            query=filters(
                status=status,
                kind=kind,
                pinned=pinned,
                expired=expired,
                search=search,
                sort=sort,
                limit=limit,
            ),
        )

    @Endpoint
    def search(self, query: str, *, limit: int | None = None) -> Call[MemoryHits]:
        """Find memories by meaning and words, the best first."""
        return post(
            list[models.MemoryHit], "memories", "search", body=filters(query=query, limit=limit)
        )

    @Endpoint
    def get(self, memory_id: str) -> Call[models.Memory]:
        """Return a memory."""
        return get(models.Memory, "memories", memory_id)

    @Endpoint
    def update(
        self,
        memory_id: str,
        *,
        content: Maybe[str] = UNSET,
        kind: Maybe[str] = UNSET,
        importance: Maybe[float] = UNSET,
        pinned: Maybe[bool] = UNSET,
        expires_at: Maybe[datetime | None] = UNSET,
        if_version: int | None = None,
    ) -> Call[models.Memory]:
        """Update a memory."""
        body = fields(
            content=content, kind=kind, importance=importance, pinned=pinned, expires_at=expires_at
        )
        return change(models.Memory, "memories", memory_id, body=body, version=if_version)

    @Endpoint
    def delete(self, memory_id: str) -> Call[None]:
        """Delete a memory."""
        return delete("memories", memory_id)

    @Endpoint
    def accept(self, memory_id: str) -> Call[models.Memory]:
        """Accept a suggested memory."""
        return post(models.Memory, "memories", memory_id, "accept")

    @Endpoint
    def reject(self, memory_id: str) -> Call[models.Memory]:
        """Reject a suggested memory."""
        return post(models.Memory, "memories", memory_id, "reject")


class Knowledge(Group[RunnerT]):
    """Documents of the knowledge base."""

    @Endpoint
    def create(
        self,
        *,
        title: str,
        content: str,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.Document]:
        """Create a document from text."""
        body = filters(title=title, content=content, content_type=content_type)
        return creation(models.Document, "knowledge", body=body, key=idempotency_key)

    @Endpoint
    def upload(
        self,
        file: bytes,
        *,
        filename: str,
        title: str | None = None,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.Document]:
        """Create a document from a file; without a title it takes the file's name.

        A text that isn't UTF-8 names its charset, e.g. `text/plain; charset=windows-1252`.
        """
        return Call(
            method="POST",
            path="/knowledge",
            answer=models.Document,
            body=filters(title=title),
            file=Upload((filename, file, content_type or "application/octet-stream")),
            headers=creation_key(idempotency_key),
        )

    @Listing
    def list(
        self,
        *,
        scope: str | None = None,
        status: str | None = None,
        search: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> Call[models.Document]:
        """List documents, the latest first, `limit` on a page."""
        return listing(
            models.Document,
            "knowledge",
            query=filters(scope=scope, status=status, search=search, sort=sort, limit=limit),
        )

    @Endpoint
    def search(self, query: str, *, limit: int | None = None) -> Call[KnowledgeHits]:
        """Find passages by words and meaning, the best first."""
        return post(
            list[models.KnowledgeHit], "knowledge", "search", body=filters(query=query, limit=limit)
        )

    @Endpoint
    def get(self, document_id: str) -> Call[models.Document]:
        """Return a document."""
        return get(models.Document, "knowledge", document_id)

    @Endpoint
    def update(
        self, document_id: str, *, title: str, if_version: int | None = None
    ) -> Call[models.Document]:
        """Rename a document."""
        return change(
            models.Document, "knowledge", document_id, body=fields(title=title), version=if_version
        )

    @Endpoint
    def delete(self, document_id: str) -> Call[None]:
        """Delete a document with its versions."""
        return delete("knowledge", document_id)

    @Endpoint
    def create_version(
        self,
        document_id: str,
        *,
        content: str,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.DocumentVersion]:
        """Create a version of a document from text."""
        body = filters(content=content, content_type=content_type)
        return creation(
            models.DocumentVersion,
            "knowledge",
            document_id,
            "versions",
            body=body,
            key=idempotency_key,
        )

    @Listing
    def versions(
        self, document_id: str, *, limit: int | None = None
    ) -> Call[models.DocumentVersion]:
        """List the versions of a document, `limit` on a page."""
        return listing(
            models.DocumentVersion, "knowledge", document_id, "versions", query=filters(limit=limit)
        )

    @Endpoint
    def get_version(self, document_id: str, number: int) -> Call[models.DocumentText]:
        """Return a version with its text."""
        return get(models.DocumentText, "knowledge", document_id, "versions", number)

    @Endpoint
    def publish(self, document_id: str, *, version: int | None = None) -> Call[models.Document]:
        """Publish a version, by default the latest one that is ready."""
        body = filters(version=version)
        return post(models.Document, "knowledge", document_id, "publish", body=body)

    @Endpoint
    def unpublish(self, document_id: str) -> Call[models.Document]:
        """Unpublish a document."""
        return post(models.Document, "knowledge", document_id, "unpublish")


class Tools(Group[RunnerT]):
    """Tools that the signed-in user's turns may use."""

    @Listing
    def list(self, *, limit: int | None = None) -> Call[models.Tool]:
        """List the tools, `limit` on a page."""
        return listing(models.Tool, "tools", query=filters(limit=limit))

    @Endpoint
    def get(self, name: str) -> Call[models.Tool]:
        """Return a tool."""
        return get(models.Tool, "tools", name)
