"""Prompts and their versions."""

from typing import Annotated

from fastapi import Request, Response

from api.access import may
from api.dependencies import Prompts
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import IdempotencyKey, PromptIdPath, RequestedPage, VersionNumberPath
from api.routing import GroupRouter
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

router = GroupRouter("/admin/prompts", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]


@router.post(
    "",
    name="admin.prompts.create",
    status_code=201,
    summary="Create a prompt",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_prompt(
    request: Request,
    response: Response,
    body: CreatePromptRequest,
    actor: Writer,
    prompts: Prompts,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[PromptDetail]:
    """Create a prompt; `content` becomes its version 1, which isn't active yet.

    The active version of the prompt named `base` starts every turn's prompt.
    """
    prompt = value_or_raise(await prompts.create(actor, body, key=idempotency_key), "prompt")
    return created(request, response, prompt, at=f"{request.url.path}/{prompt.id}")


@router.get("", name="admin.prompts.list", summary="List prompts", responses=error_docs(*SIGNED_IN))
async def list_prompts(
    request: Request,
    actor: Reader,
    prompts: Prompts,
    page: RequestedPage,
    sort: PromptSort = PromptSort.NAME,
) -> ListEnvelope[Prompt]:
    """Return the prompts, by name by default."""
    return list_envelope(request, await prompts.list_prompts(actor, page, sort=sort))


@router.get(
    "/{prompt_id}",
    name="admin.prompts.get",
    summary="Get a prompt",
    responses=error_docs(*OF_ONE),
)
async def get_prompt(
    request: Request, response: Response, prompt_id: PromptIdPath, actor: Reader, prompts: Prompts
) -> Envelope[PromptDetail]:
    """Return one prompt with its latest activations."""
    prompt = value_or_raise(await prompts.get(actor, prompt_id), "prompt")
    return tagged(request, response, prompt)


@router.post(
    "/{prompt_id}/versions",
    name="admin.prompts.versions.create",
    status_code=201,
    summary="Create a prompt's version",
    responses=error_docs(*OF_ONE, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_prompt_version(
    request: Request,
    response: Response,
    prompt_id: PromptIdPath,
    body: CreatePromptVersionRequest,
    actor: Writer,
    prompts: Prompts,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[PromptVersion]:
    """Add a version, which never changes and isn't active yet."""
    result = await prompts.add_version(actor, prompt_id, body, key=idempotency_key)
    return created(request, response, value_or_raise(result, "prompt"), at=request.url.path)


@router.get(
    "/{prompt_id}/versions",
    name="admin.prompts.versions.list",
    summary="List a prompt's versions",
    responses=error_docs(*OF_ONE),
)
async def list_prompt_versions(
    request: Request,
    prompt_id: PromptIdPath,
    actor: Reader,
    prompts: Prompts,
    page: RequestedPage,
    sort: PromptVersionSort = PromptVersionSort.NUMBER_LAST,
) -> ListEnvelope[PromptVersion]:
    """Return a prompt's versions, newest first by default."""
    found = await prompts.list_versions(actor, prompt_id, page, sort=sort)
    return list_envelope(request, value_or_raise(found, "prompt"))


@router.post(
    "/{prompt_id}/versions/{number}/activate",
    name="admin.prompts.versions.activate",
    summary="Activate a prompt's version",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT),
)
async def activate_prompt_version(
    request: Request,
    response: Response,
    prompt_id: PromptIdPath,
    number: VersionNumberPath,
    actor: Writer,
    prompts: Prompts,
) -> Envelope[PromptDetail]:
    """Make a version, newer or older, the one that new turns use.

    Running turns keep theirs. A version is refused if it is blank, takes half of the context
    budget or more, or has an unknown placeholder; `{date}` is the only known one.
    """
    prompt = value_or_raise(await prompts.activate(actor, prompt_id, number), "prompt")
    return tagged(request, response, prompt)
