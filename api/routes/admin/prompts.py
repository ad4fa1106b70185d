"""Owns prompts over HTTP, for administrators."""

from typing import Annotated, assert_never

from fastapi import Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import (
    Envelope,
    FieldProblem,
    ListEnvelope,
    created,
    list_envelope,
    tagged,
)
from api.errors import ApiError, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IdempotencyKey, PromptIdPath, VersionNumberPath
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.prompts import (
    CreatePromptRequest,
    CreatePromptVersionRequest,
    Prompt,
    PromptDetail,
    PromptSort,
    PromptVersion,
    PromptVersionSort,
)
from services.prompts.service import PromptRefusal, Unusable
from services.resources import Conflict, Unreachable

router = GroupRouter("/admin/prompts", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]


@router.post(
    "",
    status_code=201,
    summary="Make a prompt",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_prompt(
    request: Request,
    response: Response,
    body: CreatePromptRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[PromptDetail]:
    """Make a prompt; with `content` it has a version 1, which is not active yet.

    The prompt called `base` opens what every turn sends to the model, once a version is active.
    """
    prompt = value_or_raise(
        await services.prompts.create(actor, body, key=idempotency_key), _refused
    )
    return created(request, response, prompt, at=f"{request.url.path}/{prompt.id}")


@router.get("", summary="List prompts", responses=error_docs(*SIGNED_IN))
async def list_prompts(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    sort: PromptSort = PromptSort.NAME,
) -> ListEnvelope[Prompt]:
    """Return the prompts, by name unless sorted otherwise."""
    return list_envelope(request, await services.prompts.list_prompts(actor, page, sort=sort))


@router.get("/{prompt_id}", summary="Read a prompt", responses=error_docs(*OF_ONE))
async def get_prompt(
    request: Request,
    response: Response,
    prompt_id: PromptIdPath,
    actor: Reader,
    services: Services,
) -> Envelope[PromptDetail]:
    """Return one prompt with its newest activations."""
    prompt = value_or_raise(await services.prompts.get(actor, prompt_id), _refused)
    return tagged(request, response, prompt)


@router.post(
    "/{prompt_id}/versions",
    status_code=201,
    summary="Add a version",
    responses=error_docs(*OF_ONE, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_prompt_version(
    request: Request,
    response: Response,
    prompt_id: PromptIdPath,
    body: CreatePromptVersionRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[PromptVersion]:
    """Give a prompt a new version, which never changes and is not active yet."""
    added = value_or_raise(
        await services.prompts.add_version(actor, prompt_id, body, key=idempotency_key), _refused
    )
    return created(request, response, added, at=request.url.path)


@router.get("/{prompt_id}/versions", summary="List versions", responses=error_docs(*OF_ONE))
async def list_prompt_versions(
    request: Request,
    prompt_id: PromptIdPath,
    actor: Reader,
    services: Services,
    page: WantedPage,
    sort: PromptVersionSort = PromptVersionSort.NUMBER_LAST,
) -> ListEnvelope[PromptVersion]:
    """Return the versions of a prompt, newest first unless sorted otherwise."""
    found = value_or_raise(
        await services.prompts.list_versions(actor, prompt_id, page, sort=sort), _refused
    )
    return list_envelope(request, found)


@router.post(
    "/{prompt_id}/versions/{number}/activate",
    summary="Activate a version",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT),
)
async def activate_prompt_version(
    request: Request,
    response: Response,
    prompt_id: PromptIdPath,
    number: VersionNumberPath,
    actor: Writer,
    services: Services,
) -> Envelope[PromptDetail]:
    """Make a version, newer or older, the one that turns use from now on.

    Turns under way keep theirs. A version that is blank, takes half of a prompt's tokens or more,
    or holds an unknown placeholder is refused; `{date}` is the only one that is known.
    """
    prompt = value_or_raise(await services.prompts.activate(actor, prompt_id, number), _refused)
    return tagged(request, response, prompt)


def _refused(refusal: PromptRefusal | Unusable | Conflict | Unreachable) -> ApiError:
    match refusal:
        case PromptRefusal.NAME_TAKEN:
            return ApiError(
                ErrorCode.CONFLICT, "There is a prompt of this name already.", path="body.name"
            )
        case PromptRefusal.NO_SUCH_VERSION:
            return ApiError(ErrorCode.NOT_FOUND, "There is no such version of this prompt.")
        case Unusable():
            error = ApiError(ErrorCode.CONFLICT, "This version can't be activated.")
            error.details = [
                FieldProblem(path="content", message=text) for text in refusal.problems
            ]
            return error
        case Conflict() | Unreachable():
            return refused(refusal, "prompt")
        case _:
            assert_never(refusal)
