"""Owns how a request carries its token, and how an expired token is replaced on the way."""

import asyncio
from collections.abc import AsyncGenerator

import httpx2

from workers.terminal_chat.answers import check, read_credentials
from workers.terminal_chat.credentials import CredentialFile, Credentials
from workers.terminal_chat.errors import ApiError, SignedOutError


class BearerToken(httpx2.Auth):
    """Signs requests with the access token; at 401 refreshes it and sends the request again.

    Errors: SignedOutError without tokens, or where the refresh token is refused.
    """

    def __init__(self, file: CredentialFile, *, refresh_url: str) -> None:
        self._file = file
        self._refresh_url = refresh_url
        # A refresh token serves once: two refreshes at a time would end the session.
        self._refreshing = asyncio.Lock()

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Send `request`, and where its token has expired, a refresh and `request` again."""
        used = self._file.load()
        if used is None:
            raise SignedOutError
        response = yield _signed(request, used)
        if response.status_code != httpx2.codes.UNAUTHORIZED:
            return
        async with self._refreshing:
            current = self._file.load()
            if current == used:
                refreshed = yield self._refresh(current)
                current = await self._keep(refreshed, email=used.email)
        if current is None:
            raise SignedOutError
        yield _signed(request, current)

    def _refresh(self, credentials: Credentials) -> httpx2.Request:
        token = credentials.refresh_token.get_secret_value()
        return httpx2.Request("POST", self._refresh_url, json={"refreshToken": token})

    async def _keep(self, response: httpx2.Response, *, email: str) -> Credentials:
        await response.aread()
        try:
            check(response)
        except ApiError as error:
            if error.status >= 500 or error.status == httpx2.codes.TOO_MANY_REQUESTS:
                raise
            self._file.forget()
            raise SignedOutError from error
        credentials = read_credentials(response, email=email)
        self._file.save(credentials)
        return credentials


def _signed(request: httpx2.Request, credentials: Credentials) -> httpx2.Request:
    token = credentials.access_token.get_secret_value()
    request.headers["Authorization"] = f"Bearer {token}"
    return request
