"""Files: uploaded first, then named by the messages that they are attached to."""

from typing import Annotated

from fastapi import Request, Response

from api.access import limited, may
from api.dependencies import Files
from api.envelope import Envelope, ListEnvelope, created, envelope, list_envelope
from api.errors import value_or_raise
from api.file_bodies import FileBody, content_docs, content_response, upload_docs
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import FileIdPath, IdempotencyKey, RequestedPage
from api.routing import GroupRouter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.files import File, FileSort
from schema.permissions import Permission
from services.rate_limits.rules import Group

router = GroupRouter("/files", tag="files")

Reader = Annotated[Actor, may(Permission.CHATS_READ)]
Writer = Annotated[Actor, may(Permission.CHATS_WRITE)]


@router.post(
    "",
    name="files.create",
    status_code=201,
    summary="Upload a file",
    responses=error_docs(*SIGNED_IN, ErrorCode.IDEMPOTENCY_CONFLICT),
    dependencies=[limited(Group.UPLOADS)],
    openapi_extra=upload_docs(),
)
async def upload_file(
    request: Request,
    response: Response,
    actor: Writer,
    files: Files,
    upload: FileBody,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[File]:
    """Store an image, a PDF or a text file. One that no message names is deleted after a while."""
    file = value_or_raise(await files.create(actor, upload, key=idempotency_key), "file")
    return created(request, response, file, at=f"{request.url.path}/{file.id}")


@router.get("", name="files.list", summary="List files", responses=error_docs(*SIGNED_IN))
async def list_files(
    request: Request,
    actor: Reader,
    files: Files,
    page: RequestedPage,
    sort: FileSort = FileSort.CREATED_LAST,
) -> ListEnvelope[File]:
    """Return the caller's files, newest first by default."""
    return list_envelope(request, await files.list_files(actor, page, sort=sort))


@router.get("/{file_id}", name="files.get", summary="Get a file", responses=error_docs(*OF_ONE))
async def get_file(
    request: Request, file_id: FileIdPath, actor: Reader, files: Files
) -> Envelope[File]:
    """Return what a file is."""
    return envelope(request, value_or_raise(await files.get(actor, file_id), "file"))


@router.delete(
    "/{file_id}",
    name="files.delete",
    status_code=204,
    summary="Delete a file",
    responses=error_docs(*OF_ONE),
)
async def delete_file(file_id: FileIdPath, actor: Writer, files: Files) -> Response:
    """Delete a file. Messages show it as deleted, and models don't get it any more."""
    value_or_raise(await files.delete(actor, file_id), "file")
    return Response(status_code=204)


@router.get(
    "/{file_id}/content",
    name="files.content",
    summary="Download a file",
    response_class=Response,
    responses={
        **content_docs(),
        **error_docs(*OF_ONE),
    },
)
async def download_file(
    request: Request, file_id: FileIdPath, actor: Reader, files: Files
) -> Response:
    """Return the content of a file, to be saved: no browser displays it as a page."""
    stored = value_or_raise(await files.find(actor, file_id), "file")
    return await content_response(request, files, actor, stored)
