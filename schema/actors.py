"""`Actor`: on whose behalf something is done; row-level security depends on it."""

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from schema.ids import UserId

_NOBODY = UUID(int=0)


class ActorType(StrEnum):
    """The kinds of actors."""

    ANONYMOUS = "anonymous"
    USER = "user"
    ADMIN = "admin"
    SERVICE = "service"


class Actor(BaseModel):
    """The actor of a transaction. A service acts for no user: its id is the nil UUID."""

    model_config = ConfigDict(frozen=True)

    type: ActorType
    user_id: UserId


ANONYMOUS = Actor(type=ActorType.ANONYMOUS, user_id=UserId(_NOBODY))
SERVICE = Actor(type=ActorType.SERVICE, user_id=UserId(_NOBODY))


def acting_user(user_id: UserId) -> Actor:
    """Return the actor of a worker that does this user's work."""
    return Actor(type=ActorType.USER, user_id=user_id)
