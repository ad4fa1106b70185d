"""Owns the requests of administrators: lists, one thing, and what is done to it."""

from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote
from uuid import UUID

from pydantic import JsonValue

from workers.terminal_chat.answers import read
from workers.terminal_chat.api_client import ApiClient
from workers.terminal_chat.errors import ChatClientError

Row: TypeAlias = dict[str, Any]

_LARGEST_PAGE = 100


class NotFoundError(ChatClientError):
    """What was named by a person is not there, or not once."""


class AdministrationApi(ApiClient):
    """The API under `/admin`. Errors: as those of `ApiClient`."""

    async def rows(self, path: str, *, limit: int, **chosen: str | None) -> list[Row]:
        """Return the first `limit` rows of a list, page after page."""
        found: list[Row] = []
        params: dict[str, str | int] = {k: v for k, v in chosen.items() if v is not None}
        while len(found) < limit:
            params["limit"] = min(limit - len(found), _LARGEST_PAGE)
            response = await self._request("GET", f"/admin/{path}", params=params)
            page = read(list[Row], response)
            found += page.data
            if page.meta.next_cursor is None:
                break
            params["cursor"] = page.meta.next_cursor
        return found

    async def send(
        self, method: str, *path: str, body: Mapping[str, JsonValue] | None = None
    ) -> Row:
        """Send a request about one thing, and return it as it is then; gone, it has no fields."""
        address = "/".join(quote(part, safe="") for part in path)
        response = await self._request(method, f"/admin/{address}", json=body)
        return {} if response.is_success and not response.content else read(Row, response).data

    async def user_id(self, who: str) -> str:
        """Return the id of a user who is named by it, or by their e-mail address."""
        return await self._id_of(who, "users", by="email", search=who)

    async def plan_id(self, which: str) -> str:
        """Return the id of a plan that is named by it, or by its name."""
        return await self._id_of(which, "plans", by="name")

    async def _id_of(self, named: str, path: str, *, by: str, **chosen: str) -> str:
        if _is_id(named):
            return named
        rows = await self.rows(path, limit=10_000, **chosen)
        ids = [row["id"] for row in rows if str(row[by]).lower() == named.lower()]
        if len(ids) != 1:
            raise NotFoundError(f"There is no {by} {named} among the {path}.")
        return str(ids[0])


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
