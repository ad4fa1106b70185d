"""Documents in request bodies: a string in JSON, or a file in a form.

FastAPI would read the body before it authenticates the caller, and all of it into memory. Here the
caller comes first, and a file is buffered on disk until its limit is checked.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import PurePath
from typing import Annotated, Any, Final, TypeVar, cast, get_args

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from api import error_messages
from api.access import CurrentCaller
from api.dependencies import Knowledge
from api.errors import ApiError, invalid
from api.routing import TooManyItemsError, check_items
from schema.errors import ErrorCode
from schema.knowledge import (
    CreateDocumentRequest,
    CreateVersionRequest,
    DocumentFields,
    DocumentType,
    TextType,
    VersionFields,
)
from schema.wire import RequestModel, make_storable
from services.knowledge.extraction.charsets import codec_of, marked
from services.knowledge.extraction.garbling import is_garbled
from services.knowledge.versions import Submission, TitledSubmission

R = TypeVar("R", bound=RequestModel)

_PATHS: Final = re.compile(r"/knowledge(/[^/]+/versions)?")
_AROUND_DOCUMENT_BYTES: Final = 64 * 1024
"""Room for other fields, boundaries and names beside the document."""

_MAX_ITEMS: Final = 100

_DOCUMENT_TYPES: Final[Sequence[str]] = (*get_args(TextType), "application/pdf")
_TYPES_BY_EXTENSION: Final[Mapping[str, DocumentType]] = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".htm": "text/html",
    ".html": "text/html",
    ".pdf": "application/pdf",
}
# What clients send for a file of unknown type.
_UNKNOWN_TYPES: Final = frozenset({"", "application/octet-stream"})
_LONGEST_TITLE: Final = 200
_JUDGED_CHARS: Final = 100_000


def takes_document(scope: Scope, *, prefix: str) -> bool:
    """Return whether a request is for a route that reads its body with this module."""
    path = str(scope["path"])
    is_path = path.startswith(prefix) and _PATHS.fullmatch(path, len(prefix)) is not None
    return scope["method"] == "POST" and is_path


def body_limit(max_document_bytes: int) -> int:
    """Return the size limit of a body that holds a document."""
    return max_document_bytes + _AROUND_DOCUMENT_BYTES


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a form, as its client describes it."""

    name: str
    content_type: str
    charset: str | None
    source: bytes


async def _document(
    request: Request, knowledge: Knowledge, caller: CurrentCaller
) -> TitledSubmission:
    limit = min(knowledge.max_document_bytes, caller.account.entitlements.max_document_bytes)
    if media_type_of(request) == "multipart/form-data":
        fields, file = await _read_document(request, DocumentFields, limit)
        content_type = _type_of(fields, file)
        source = await asyncio.to_thread(_source_of, file, content_type, limit)
        return TitledSubmission(content_type, source, fields.title or _title_of(file))
    body = await _read_json(request, CreateDocumentRequest)
    return TitledSubmission(body.content_type, _within(body.content, limit), body.title)


async def _version(request: Request, knowledge: Knowledge, caller: CurrentCaller) -> Submission:
    limit = min(knowledge.max_document_bytes, caller.account.entitlements.max_document_bytes)
    if media_type_of(request) == "multipart/form-data":
        fields, file = await _read_document(request, VersionFields, limit)
        content_type = _type_of(fields, file)
        return Submission(
            content_type, await asyncio.to_thread(_source_of, file, content_type, limit)
        )
    body = await _read_json(request, CreateVersionRequest)
    return Submission(body.content_type, _within(body.content, limit))


DocumentBody = Annotated[TitledSubmission, Depends(_document)]
VersionBody = Annotated[Submission, Depends(_version)]


def body_docs(text: type[RequestModel], fields: type[RequestModel]) -> dict[str, Any]:
    """Return the OpenAPI entry of a body that is JSON with the text, or a form with a file."""
    form = fields.model_json_schema()
    form["properties"]["file"] = {
        "type": "string",
        "format": "binary",
        "description": "The document. Its type is the part's unless `contentType` is set. Text is "
        "decoded by the `charset` of the part's type; without one it must be UTF-8, or clearly in "
        "another charset.",
    }
    content = {
        "application/json": {"schema": text.model_json_schema()},
        "multipart/form-data": {"schema": {**form, "required": ["file"]}},
    }
    return {"requestBody": {"required": True, "content": content}}


def media_type_of(request: Request) -> str:
    """Return the type of a body that is JSON or a form."""
    header = Message()
    header["content-type"] = request.headers.get("content-type", "application/json")
    media_type = header.get_content_type()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    if is_json or media_type == "multipart/form-data":
        return media_type
    raise invalid("header.Content-Type", error_messages.DOCUMENT_MEDIA_TYPE)


async def _read_json(request: Request, model: type[R]) -> R:
    try:
        body = await request.body()
    except ClientDisconnect:
        raise invalid("body", error_messages.BODY_INCOMPLETE) from None
    # Parsing megabytes would block other requests.
    return await asyncio.to_thread(_parsed, body, model)


def _parsed(body: bytes, model: type[R]) -> R:
    try:
        check_items(body, most=_MAX_ITEMS)
        return model.model_validate(json.loads(body))
    except TooManyItemsError:
        raise invalid("body", error_messages.TOO_MANY_ITEMS) from None
    except ValidationError as error:
        raise _in_body(error) from None
    except json.JSONDecodeError as error:
        raise invalid("body", error_messages.INVALID_JSON_AT.format(error.pos)) from None
    except ValueError:
        raise invalid("body", error_messages.INVALID_JSON) from None


async def _read_document(request: Request, model: type[R], limit: int) -> tuple[R, _File]:
    too_large = error_messages.DOCUMENT_TOO_LARGE.format(limit)
    async with read_form(request, model, limit, too_large=too_large) as (fields, upload):
        media_type, charset = type_and_charset(upload)
        return fields, _File(upload.filename or "", media_type, charset, await upload.read())


@asynccontextmanager
async def read_form(
    request: Request, model: type[R], limit: int, *, too_large: str
) -> AsyncIterator[tuple[R, UploadFile]]:
    """Read a form with one file, which is open until the block ends.

    Errors: ApiError, with `too_large` for a file above `limit` bytes; RequestValidationError.
    """
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=1,
        max_fields=4,
        max_part_size=_AROUND_DOCUMENT_BYTES,
    )
    try:
        form = await parser.parse()
        fields, upload = _fields_of(form, model), _file_of(form, limit, too_large)
        yield fields, upload
    except MultiPartException as error:
        raise invalid("body", make_storable(error.message)) from None
    except ClientDisconnect:
        raise invalid("body", error_messages.BODY_INCOMPLETE) from None
    except UnicodeError:
        raise invalid("body", error_messages.UNKNOWN_FORM_CHARSET) from None
    finally:
        # `Request.form` leaks a file whose part never ended.
        for file in parser._files_to_close_on_error:  # noqa: SLF001 -- see above
            file.close()


def _fields_of(form: FormData, model: type[R]) -> R:
    fields = {make_storable(name): value for name, value in form.multi_items() if name != "file"}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _in_body(error) from None


def _file_of(form: FormData, limit: int, too_large: str) -> UploadFile:
    given = form.getlist("file")
    if len(given) != 1 or not isinstance(given[0], UploadFile):
        raise invalid("body.file", error_messages.ONE_FILE)
    file = given[0]
    if (file.size or 0) > limit:
        raise ApiError(ErrorCode.PAYLOAD_TOO_LARGE, too_large)
    if not file.size:
        raise invalid("body.file", error_messages.FILE_EMPTY)
    return file


def type_and_charset(file: UploadFile) -> tuple[str, str | None]:
    """Return the type and the charset that the header of a file's part declares."""
    header = Message()
    header["content-type"] = file.content_type or ""
    media_type = (file.content_type or "").partition(";")[0].strip().lower()
    return media_type, header.get_content_charset()


def _source_of(file: _File, content_type: DocumentType, limit: int) -> bytes:
    """Return a file's bytes; text with a charset is converted to UTF-8.

    HTML gets a byte order mark, which overrides the charset that the page itself declares.
    """
    if file.charset is None or content_type == "application/pdf":
        return file.source
    try:
        codec = codec_of(file.charset)
        # A byte order mark overrides what a client says.
        text = marked(file.source) or file.source.decode(codec)
    except LookupError:
        raise invalid("body.file", error_messages.UNKNOWN_CHARSET) from None
    except UnicodeError:
        raise invalid("body.file", error_messages.WRONG_CHARSET) from None
    # Any bytes are letters in most charsets: whether they are words shows in the text.
    if not codec.startswith("utf") and is_garbled(text[:_JUDGED_CHARS]):
        raise invalid("body.file", error_messages.WRONG_CHARSET)
    encoding = "utf-8-sig" if content_type == "text/html" else "utf-8"
    return _within(text.removeprefix("\ufeff"), limit, encoding=encoding)


def _within(content: str, limit: int, *, encoding: str = "utf-8") -> bytes:
    source = content.encode(encoding)
    if len(source) > limit:
        raise _too_large(limit)
    return source


def _too_large(limit: int) -> ApiError:
    message = error_messages.DOCUMENT_TOO_LARGE.format(limit)
    return ApiError(ErrorCode.PAYLOAD_TOO_LARGE, message)


def _type_of(fields: VersionFields, file: _File) -> DocumentType:
    """Return the file's type by the form's field, the part's header, or the name's extension."""
    if fields.content_type is not None:
        return fields.content_type
    if file.content_type in _DOCUMENT_TYPES:
        return cast("DocumentType", file.content_type)
    by_name = _TYPES_BY_EXTENSION.get(PurePath(file.name).suffix.lower())
    if file.content_type not in _UNKNOWN_TYPES or by_name is None:
        message = error_messages.DOCUMENT_TYPE.format(", ".join(_DOCUMENT_TYPES))
        raise invalid("body.contentType", message)
    return by_name


def _title_of(file: _File) -> str:
    """Return the file's name as a title."""
    title = plain_name(file.name, longest=_LONGEST_TITLE)
    if not title:
        raise invalid("body.title", error_messages.DOCUMENT_UNTITLED)
    return title


def plain_name(name: str, *, longest: int) -> str:
    """Return a file's name without folders and unprintable characters; it may be empty."""
    last = re.split(r"[\\/]", make_storable(name))[-1]
    return "".join(char for char in last if char.isprintable()).strip()[:longest]


def _in_body(error: ValidationError) -> RequestValidationError:
    problems = error.errors(include_url=False)
    return RequestValidationError(
        [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
    )
