"""Feedback on answers, from their users and for administrators."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from schema.ids import ChatId, MessageId, TurnId, UserId
from schema.time_ranges import TimeRange
from schema.wire import RequestModel, StorableText, Timestamp, VisibleText, WireModel


class Rating(StrEnum):
    """Whether an answer was good."""

    UP = "up"
    DOWN = "down"


class GiveFeedbackRequest(RequestModel):
    """Feedback on an answer; it replaces earlier feedback."""

    rating: Annotated[Rating, Field(strict=False, examples=["down"])]
    reason: Annotated[
        VisibleText | None,
        Field(
            min_length=1,
            max_length=100,
            description="One of the reasons that the client offers.",
            examples=["inaccurate"],
        ),
    ] = None
    text: Annotated[
        VisibleText | None,
        Field(min_length=1, max_length=4000, description="The user's own words."),
    ] = None


class Feedback(WireModel):
    """Feedback on an answer."""

    rating: Rating
    reason: str | None
    text: str | None
    created_at: Timestamp
    updated_at: Timestamp


class GivenFeedback(Feedback):
    """Feedback with its answer's model and base prompt, for administrators."""

    id: UUID
    user_id: UserId
    chat_id: ChatId
    turn_id: TurnId
    message_id: MessageId
    model: str = Field(description="The model that gave the answer.")
    prompt_version: str | None = Field(description="The version of the base prompt.")


class FeedbackFilter(TimeRange):
    """Filters for a list of feedback."""

    rating: Rating | None = None
    model: Annotated[StorableText | None, Field(max_length=100)] = None
    prompt_version: Annotated[StorableText | None, Field(max_length=200)] = None
    user_id: UserId | None = None
