"""Contents of files in S3-compatible storage: a real server, one that is gone, and what is left."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from uuid import UUID

import obstore
import pytest

from schema.actors import SERVICE, Actor, acting_user
from schema.ids import FileId, UserId, new_id
from schema.result import Ok
from services.auth.accounts import AccountCache
from services.files.inspection import FileLimits
from services.files.inspector import Inspector
from services.files.object_storage import Bucket, ObjectStorage
from services.files.service import FileService, Upload
from services.files.store import Bytes, FileLostError, FilesUnavailableError
from tests.fixtures.api_user import ApiUser
from tests.fixtures.object_storage import KEY, SECRET, running_object_storage, store_at
from tests.fixtures.stack import Stack


@pytest.fixture(scope="module")
async def endpoint(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A storage server with an empty bucket `files`."""
    folder: Path = tmp_path_factory.mktemp("objects")
    async with running_object_storage(folder) as address:
        yield address


def bucket_at(endpoint: str, *, secret: str = SECRET) -> Bucket:
    return Bucket(
        name="files",
        prefix="everturn/",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=KEY,
        secret_access_key=secret,
    )


def files_at(stack: Stack, bucket: Bucket) -> FileService:
    database = stack.foundation.database
    return FileService(
        database,
        AccountCache(database, lifetime_s=0),
        Inspector(FileLimits()),
        ObjectStorage(bucket, timeout_s=5),
        unattached_for=timedelta(hours=24),
    )


def objects_at(endpoint: str) -> list[str]:
    return [found["path"] for page in obstore.list(store_at(endpoint)) for found in page]


@contextmanager
def opened(data: bytes) -> Iterator[Upload]:
    with TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield Upload(file.fileno(), "note.txt")


async def stored(
    files: FileService, actor: Actor, data: bytes, *, key: str | None = None
) -> FileId:
    with opened(data) as upload:
        result = await files.create(actor, upload, key=key)
    assert isinstance(result, Ok), result
    return result.value.id


async def content_of(files: FileService, actor: Actor, file_id: FileId, *, size: int) -> bytes:
    pieces = files.read(actor, file_id, "s3", start=0, end=size)
    return b"".join([piece async for piece in pieces])


def actor_of(user: ApiUser) -> Actor:
    return acting_user(UserId(UUID(user.id)))


async def test_a_content_is_written_read_in_pieces_and_erased_with_its_file(
    stack: Stack, user: ApiUser, endpoint: str
) -> None:
    files, actor = files_at(stack, bucket_at(endpoint)), actor_of(user)
    data = os.urandom(1_000).hex().encode() * 150

    file_id = await stored(files, actor, data, key="k")
    again = await stored(files, actor, data, key="k")

    assert again == file_id
    assert await content_of(files, actor, file_id, size=len(data)) == data
    await files.sweep()
    assert objects_at(endpoint) == [f"everturn/{file_id}/original"]
    await files.delete(actor, file_id)
    assert await files.is_any_due()
    await files.sweep()
    assert objects_at(endpoint) == []
    assert not await files.is_any_due()
    with pytest.raises(FileLostError):
        await content_of(files, actor, file_id, size=len(data))


async def test_an_upload_that_dies_before_its_row_is_stored_leaves_no_object(
    stack: Stack, user: ApiUser, endpoint: str
) -> None:
    files, lost = files_at(stack, bucket_at(endpoint)), FileId(new_id())
    assert files._objects is not None

    await files._write_objects(files._objects, lost, {"original": Bytes(b"half of it")})

    assert objects_at(endpoint) == [f"everturn/{lost}/original"]
    assert not await files.is_any_due()
    async with stack.foundation.database.statements(SERVICE) as connection:
        await connection.execute("UPDATE file_erasures SET due_at = now() WHERE file_id = $1", lost)
    await files.sweep()
    assert objects_at(endpoint) == []


@pytest.mark.parametrize("how", ["gone", "refusing"])
async def test_a_storage_that_is_gone_or_refuses_stores_nothing_and_is_asked_again_later(
    stack: Stack, user: ApiUser, endpoint: str, how: str
) -> None:
    actor = actor_of(user)
    there = files_at(stack, bucket_at(endpoint))
    file_id = await stored(there, actor, b"kept")
    address = "http://127.0.0.1:1" if how == "gone" else endpoint
    files = files_at(stack, bucket_at(address, secret="another secret"))

    with opened(b"a note") as upload, pytest.raises(FilesUnavailableError):
        await files.create(actor, upload, key=None)
    with pytest.raises(FilesUnavailableError):
        await content_of(files, actor, file_id, size=4)
    await files.delete(actor, file_id)
    await files.sweep()

    assert objects_at(endpoint) == [f"everturn/{file_id}/original"]
    assert not await files.is_any_due()
    async with stack.foundation.database.statements(SERVICE) as connection:
        await connection.execute("UPDATE file_erasures SET due_at = now()")
    await there.sweep()
    assert objects_at(endpoint) == []
    assert (await user.request("GET", "/files")).json()["data"] == []
