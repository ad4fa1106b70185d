"""Owns the envelope of the API's answers: data on success, a code and a message on failure."""

from typing import Generic, TypeVar

import httpx2
from pydantic import BaseModel, ConfigDict, JsonValue, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from workers.terminal_chat.credentials import Credentials
from workers.terminal_chat.errors import ApiError, UnreadableAnswerError

DataT = TypeVar("DataT")


class Payload(BaseModel):
    """The part of an answer that this client reads; the rest is ignored."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class Chat(Payload):
    """A chat of the person."""

    id: str
    title: str


class ChatMessage(Payload):
    """A message of a chat."""

    id: str
    role: str
    content: str


class Turn(Payload):
    """A turn, by its id."""

    id: str


class AcceptedTurn(Payload):
    """The answer to a message whose turn is not streamed at once."""

    turn: Turn


class _Tokens(Payload):
    access_token: SecretStr
    refresh_token: SecretStr


class PageMeta(Payload):
    """Where the next page of a list begins, if there is one."""

    next_cursor: str | None = None


class Answer(Payload, Generic[DataT]):
    """A successful answer."""

    data: DataT
    meta: PageMeta = PageMeta(next_cursor=None)


class _Problem(Payload):
    code: str
    message: str
    retryable: bool = False
    details: JsonValue = None

    @property
    def sentence(self) -> str:
        """The message, and which inputs were refused if the API says so."""
        details = self.details if isinstance(self.details, list) else []
        refused = [
            f"{detail.get('path', '')}: {detail['message']}"
            for detail in details
            if isinstance(detail, dict) and "message" in detail
        ]
        return f"{self.message.rstrip('.')}: {', '.join(refused)}" if refused else self.message


class _Failure(Payload):
    error: _Problem


def check(response: httpx2.Response) -> None:
    """Do nothing for a success; the body of a failure must have been read.

    Errors: ApiError with the code and the message of a failure.
    """
    if response.is_success:
        return
    try:
        problem = _Failure.model_validate_json(response.content).error
    except ValidationError:
        status = response.status_code
        problem = _Problem(
            code=f"HTTP_{status}",
            message=response.reason_phrase or "The request failed",
            retryable=status in {502, 503, 504},
        )
    raise ApiError(
        problem.sentence,
        code=problem.code,
        status=response.status_code,
        retryable=problem.retryable,
        retry_after_s=_seconds(response.headers.get("Retry-After", "")),
    )


def read(data_type: type[DataT], response: httpx2.Response) -> Answer[DataT]:
    """Return the answer in `response`.

    Errors: ApiError for a failure, UnreadableAnswerError for a body of another shape.
    """
    check(response)
    try:
        return Answer[data_type].model_validate_json(response.content)  # type: ignore[valid-type]
    except ValidationError as error:
        raise UnreadableAnswerError("an answer") from error


def read_credentials(response: httpx2.Response, *, email: str) -> Credentials:
    """Return the tokens in `response`, as those of `email`."""
    tokens = read(_Tokens, response).data
    return Credentials(
        email=email, access_token=tokens.access_token, refresh_token=tokens.refresh_token
    )


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isdecimal() else 0.0
