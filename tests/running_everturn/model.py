"""The control of a scripted model behind a URL."""

from typing import Any

import httpx


class ModelControl:
    """Scripts, watches and releases a scripted model through its endpoints under `/demo`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def script(self, **script: object) -> None:
        """Queue how one matching request is answered; the fields are those of `Script`."""
        response = await self._http.post("/demo/scripts", json=script)
        assert response.status_code == httpx.codes.CREATED, response.text

    async def release(self, gate: str) -> None:
        """Let the answers go on that are held at this gate."""
        response = await self._http.post(f"/demo/release/{gate}")
        assert response.status_code == httpx.codes.NO_CONTENT, response.text

    async def requests(
        self, match: str, *, wait_for: int = 0, ended: bool = False
    ) -> list[dict[str, Any]]:
        """Return the requests whose newest user text contains `match`."""
        query: dict[str, str | int | bool] = {"match": match, "wait_for": wait_for, "ended": ended}
        response = await self._http.get("/demo/requests", params=query)
        assert response.status_code == httpx.codes.OK, response.text
        listed: list[dict[str, Any]] = response.json()["requests"]
        return listed
