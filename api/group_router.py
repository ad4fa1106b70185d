"""Owns the routers that the API is made of, each for the addresses of one group."""

from typing import Final

from fastapi import APIRouter
from starlette.routing import Match
from starlette.types import Scope

API_PREFIX: Final = "/api/v1"


class GroupRouter(APIRouter):
    """A router for what is below `prefix`, which may hold parameters, in this version of the API.

    It passes over an address elsewhere at once: to compare each request with every route of every
    group took up to a quarter of the time of a read.
    """

    def __init__(self, prefix: str, *, tag: str) -> None:
        super().__init__(prefix=f"{API_PREFIX}{prefix}", tags=[tag])
        self._beginning = self.prefix.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether one of the routes takes the request."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if not path.startswith(self._beginning):
            return Match.NONE, {}
        return super().matches(scope)
