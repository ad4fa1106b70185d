"""Asks the provider to count a prompt, where it can.

Compatible gateways lack the endpoint, or answer anything: what is no plausible count is none, and
for a while no other is asked for. Nothing waits long for a count: the estimate stands without it.
"""

import asyncio
from datetime import timedelta
from typing import Final, Protocol

import structlog

from services.models.failures import ModelCallError
from services.models.gateway import ModelRequest

_log = structlog.get_logger(__name__)

_PAUSE: Final = timedelta(minutes=10)
_FURTHEST_OFF: Final = 4
"""A count that differs from the estimate by more than this factor is no count of this prompt."""


class CountEndpoint(Protocol):
    """Counts the tokens of a prompt."""

    async def count_tokens(self, request: ModelRequest) -> object:
        """Return what the provider says that the prompt has.

        Errors: ModelCallError.
        """
        ...


class TokenCounts:
    """Counts of prompts by the provider, with a pause after one that failed."""

    def __init__(self, endpoint: CountEndpoint) -> None:
        self._endpoint = endpoint
        self._paused_until = 0.0

    async def count(self, request: ModelRequest, *, estimate: int) -> int | None:
        """Return how many tokens the prompt has, or None if that can't be learnt now."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._paused_until:
            return None
        reason = "odd"
        try:
            counted = await self._endpoint.count_tokens(request)
        except ModelCallError as error:
            counted, reason = None, error.kind.value
        if type(counted) is int and estimate / _FURTHEST_OFF <= counted <= estimate * _FURTHEST_OFF:
            return counted
        self._paused_until = loop.time() + _PAUSE.total_seconds()
        _log.warning("tokens_not_counted", reason=reason)
        return None
