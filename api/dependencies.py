"""The services that routes ask for, by the part of the product."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request

from api.service_groups import (
    AccountServices,
    ApiServices,
    KnowledgeServices,
    MemoryServices,
    OperationServices,
    SubscriptionServices,
    ToolServices,
    TurnServices,
)
from api.temporal_gateway import TemporalGateway
from services.chats import ChatService
from services.feedback import FeedbackService
from services.files.service import FileService
from services.messages import MessageService
from services.prompts.service import PromptService


def services_of(request: Request) -> ApiServices:
    """Return the application's services.

    For dependencies of every route: FastAPI resolves a dependency of theirs once for each.
    """
    services: ApiServices = request.app.state.services
    return services


def _part(pick: Callable[[ApiServices], object]) -> Any:  # noqa: ANN401 -- as FastAPI's Depends
    # Async although nothing is awaited: FastAPI runs plain functions in a thread.
    async def part(request: Request) -> object:
        return pick(services_of(request))

    return Depends(part)


Services = Annotated[ApiServices, _part(lambda services: services)]
"""For routes that need several parts."""

Accounts = Annotated[AccountServices, _part(lambda services: services.accounts)]
Subscriptions = Annotated[SubscriptionServices, _part(lambda services: services.subscriptions)]
Chats = Annotated[ChatService, _part(lambda services: services.chats)]
Messages = Annotated[MessageService, _part(lambda services: services.messages)]
FeedbackOnAnswers = Annotated[FeedbackService, _part(lambda services: services.feedback)]
Turns = Annotated[TurnServices, _part(lambda services: services.turns)]
Files = Annotated[FileService, _part(lambda services: services.files)]
Memories = Annotated[MemoryServices, _part(lambda services: services.memories)]
Knowledge = Annotated[KnowledgeServices, _part(lambda services: services.knowledge)]
Tools = Annotated[ToolServices, _part(lambda services: services.tools)]
Prompts = Annotated[PromptService, _part(lambda services: services.prompts)]
Operations = Annotated[OperationServices, _part(lambda services: services.operations)]
Temporal = Annotated[TemporalGateway, _part(lambda services: services.temporal)]
