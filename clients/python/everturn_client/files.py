"""Files: uploaded first, then attached to messages by their IDs."""

from everturn_client import models
from everturn_client.calls import (
    Call,
    Upload,
    creation_key,
    delete,
    filters,
    get,
    listing,
)
from everturn_client.endpoints import Endpoint, Group, Listing, RunnerT


class Files(Group[RunnerT]):
    """Files of the signed-in user."""

    @Endpoint
    def upload(
        self,
        file: bytes,
        *,
        filename: str,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.File]:
        """Upload an image, a PDF or a text file. Its content decides what it is.

        A text that isn't UTF-8 names its charset, e.g. `text/plain; charset=windows-1252`.
        """
        return Call(
            method="POST",
            path="/files",
            answer=models.File,
            body={},
            file=Upload((filename, file, content_type or "application/octet-stream")),
            headers=creation_key(idempotency_key),
        )

    @Listing
    def list(self, *, sort: str | None = None, limit: int | None = None) -> Call[models.File]:
        """List files, the latest first, `limit` on a page."""
        return listing(models.File, "files", query=filters(sort=sort, limit=limit))

    @Endpoint
    def get(self, file_id: str) -> Call[models.File]:
        """Return what a file is."""
        return get(models.File, "files", file_id)

    @Endpoint
    def content(self, file_id: str) -> Call[bytes]:
        """Return the content of a file."""
        return get(bytes, "files", file_id, "content")

    @Endpoint
    def delete(self, file_id: str) -> Call[None]:
        """Delete a file."""
        return delete("files", file_id)
