"""Contents of files in S3-compatible storage.

Every request has a bound of time and few retries: what asks for a file decides what a failure
means. An object is written by one request, so that none is left in parts.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final

import structlog

from schema.ids import FileId
from services.files.store import (
    PIECE_BYTES,
    Content,
    FileLostError,
    FilesUnavailableError,
    Variant,
)

if TYPE_CHECKING:
    # At run time it is imported where it is configured.
    from obstore.store import S3Store

_log = structlog.get_logger(__name__)

_WRITES_AT_A_TIME: Final = 2
_RANGE: Final = 8 * PIECE_BYTES
"""How much is read at once: each request takes as long as a few megabytes."""
_ATTEMPTS_S: Final = 60.0
_VARIANTS: Final[tuple[Variant, ...]] = ("original", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Where objects are; without keys the machine's own credentials count."""

    name: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None


class ObjectStorage:
    """Reads, writes and deletes contents. Errors: FilesUnavailableError, FileLostError."""

    def __init__(self, bucket: Bucket, *, timeout_s: float) -> None:
        self._bucket = bucket
        self._timeout_s = timeout_s
        self._writes = asyncio.Semaphore(_WRITES_AT_A_TIME)

    async def write(self, file_id: FileId, variant: Variant, content: Content) -> None:
        """Write an object, whole or not at all.

        Idempotency: the same content may be written again.
        """
        import obstore  # noqa: PLC0415 -- see above

        async with self._writes:
            with content.as_buffer() as data:
                async with _translated(_ATTEMPTS_S):
                    await obstore.put_async(
                        self._store, self._key(file_id, variant), data, use_multipart=False
                    )

    async def read(
        self, file_id: FileId, variant: Variant, *, start: int, end: int
    ) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to `end`, in pieces."""
        import obstore  # noqa: PLC0415 -- see above

        for first in range(start, end, _RANGE):
            size = min(_RANGE, end - first)
            async with _translated(_ATTEMPTS_S):
                data = await obstore.get_range_async(
                    self._store, self._key(file_id, variant), start=first, length=size
                )
            if len(data) != size:
                raise FileLostError
            held = memoryview(data)
            for at in range(0, size, PIECE_BYTES):
                yield bytes(held[at : at + PIECE_BYTES])

    async def delete(self, file_id: FileId) -> None:
        """Delete the objects of a file, of which there may be none."""
        import obstore  # noqa: PLC0415 -- see above

        for variant in _VARIANTS:
            try:
                async with _translated(_ATTEMPTS_S):
                    await obstore.delete_async(self._store, self._key(file_id, variant))
            except FileLostError:
                continue

    def _key(self, file_id: FileId, variant: Variant) -> str:
        return f"{self._bucket.prefix}{file_id}/{variant}"

    @cached_property
    def _store(self) -> "S3Store":
        from obstore.store import S3Store  # noqa: PLC0415 -- see above

        bucket, timeout = self._bucket, timedelta(seconds=self._timeout_s)
        given = {
            "endpoint": bucket.endpoint,
            "region": bucket.region,
            "access_key_id": bucket.access_key_id,
            "secret_access_key": bucket.secret_access_key,
        }
        return S3Store(
            bucket.name,
            config={name: value for name, value in given.items() if value},  # type: ignore[arg-type]  # of these names
            client_options={
                "connect_timeout": timedelta(seconds=min(5.0, self._timeout_s)),
                "timeout": timeout,
                # The operator names the address, as that of the database.
                "allow_http": (bucket.endpoint or "").startswith("http://"),
            },
            retry_config={"max_retries": 2, "retry_timeout": timeout},
        )


@asynccontextmanager
async def _translated(timeout_s: float) -> AsyncIterator[None]:
    """Translate failures of the storage; the log has what the operator needs."""
    from obstore import exceptions  # noqa: PLC0415 -- see above

    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (exceptions.NotFoundError, FileNotFoundError):
        raise FileLostError from None
    except (exceptions.BaseError, TimeoutError, OSError) as error:
        # Its text has the key and the answer of the storage, nothing that a person wrote.
        _log.warning("file_storage_failed", error=str(error)[:500])
        raise FilesUnavailableError from error
