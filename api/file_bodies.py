"""Files in requests and responses: uploads as forms, and contents with ranges and entity tags."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Scope

from api import error_messages
from api.access import CurrentCaller
from api.dependencies import Files
from api.document_bodies import media_type_of, plain_name, read_form, type_and_charset
from api.errors import ApiError, invalid
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.files import FileUploadFields
from services.files.service import FileService, StoredFile, Upload
from services.files.store import FileLostError

_LONGEST_NAME: Final = 255
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[^"]*")|\*')

_SAFE: Final = {
    # Whatever a browser takes it for: no script runs, nothing is loaded, no page of ours is meant.
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-site",
    "Cache-Control": "private, no-cache",
    "Accept-Ranges": "bytes",
}


def takes_file(scope: Scope, *, prefix: str) -> bool:
    """Return whether a request is an upload."""
    return (scope["method"], scope["path"]) == ("POST", f"{prefix}/files")


async def _upload(request: Request, files: Files, caller: CurrentCaller) -> AsyncIterator[Upload]:
    limit = min(files.max_bytes, caller.account.entitlements.max_file_bytes)
    if media_type_of(request) != "multipart/form-data":
        raise invalid("header.Content-Type", error_messages.FORM_EXPECTED)
    too_large = error_messages.FILE_TOO_LARGE.format(limit)
    async with read_form(request, FileUploadFields, limit, too_large=too_large) as (fields, file):
        name = plain_name(fields.name or file.filename or "", longest=_LONGEST_NAME)
        declared, charset = type_and_charset(file)
        # What is still in memory goes to the disk, from where it can be read in pieces.
        descriptor = await asyncio.to_thread(file.file.fileno)
        yield Upload(descriptor, name or "file", declared, charset)


FileBody = Annotated[Upload, Depends(_upload)]


def upload_docs() -> dict[str, Any]:
    """Return the OpenAPI entry of an upload."""
    form = FileUploadFields.model_json_schema()
    form["properties"]["file"] = {
        "type": "string",
        "format": "binary",
        "description": "A PNG, JPEG, GIF or WebP image, a PDF, or a text file of any kind. Its "
        "content decides what it is. Text is decoded by the `charset` of the part's type; without "
        "one it must be UTF-8, or clearly in another charset.",
    }
    content = {"multipart/form-data": {"schema": {**form, "required": ["file"]}}}
    return {"requestBody": {"required": True, "content": content}}


def content_docs() -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of a file's content."""
    tag = {"ETag": {"description": "The content's digest.", "schema": {"type": "string"}}}
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {
        200: {"description": "The file as it was uploaded.", "content": binary, "headers": tag},
        206: {"description": "The range that `Range` names.", "content": binary, "headers": tag},
        304: {"description": "`If-None-Match` names this content.", "headers": tag},
    }


async def content_response(
    request: Request, files: FileService, actor: Actor, stored: StoredFile
) -> Response:
    """Return the content of a file, or the part of it that is asked for.

    Errors: ApiError; FilesUnavailableError.
    """
    file, tag = stored.file, f'"{stored.sha256.hex()}"'
    headers = {**_SAFE, "ETag": tag, "Content-Disposition": _disposition(file.name)}
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    chosen = _chosen_range(request, tag, size=file.size)
    start, end = (0, file.size) if chosen is None else chosen
    if chosen is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - start)
    pieces = files.read(actor, file.id, stored.storage, start=start, end=end)
    try:
        # Whether it can be read at all is known before the response begins.
        first = await anext(aiter(pieces))
    except FileLostError:
        raise ApiError(ErrorCode.NOT_FOUND, error_messages.FILE_LOST) from None
    return StreamingResponse(
        _with(first, pieces),
        status_code=200 if chosen is None else 206,
        media_type=file.content_type,
        headers={**headers, "Content-Type": file.content_type},
    )


async def _with(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async with aclosing(pieces) as rest:  # type: ignore[type-var]  # a generator
        async for piece in rest:
            yield piece


def _has(header: str, tag: str) -> bool:
    """Return whether a list of entity tags has this one. Source: RFC 9110, section 13.1.2."""
    return any(found[0] == "*" or found[1] == tag for found in _ENTITY_TAG.finditer(header))


def _chosen_range(request: Request, tag: str, *, size: int) -> tuple[int, int] | None:
    """Return the range that is asked for, or None for all of it.

    Several ranges, and one that the content does not have, get the whole. Source: RFC 9110,
    section 14.2: a server may ignore the header.
    """
    asked = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if asked is None or request.headers.get("if-range", tag) != tag:
        return None
    first, last = asked.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
    else:
        start, end = max(size - int(last or 0), 0), size
    return (start, end) if start < end else None


def _disposition(name: str) -> str:
    """Return a header by which browsers save the file under its name. Source: RFC 6266."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
