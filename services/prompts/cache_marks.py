"""Owns the marks up to which the provider keeps a prompt, so that it is read again cheaply.

A request may have four: one ends what is stable for the user, one the history, and two stand in
the newest results of tools, of which the older was written by the call before.
Source: the Messages API's documentation of prompt caching.
"""

from typing import Final

from anthropic.types import CacheControlEphemeralParam

CACHE_MARK: Final[CacheControlEphemeralParam] = {"type": "ephemeral"}
"""What stands in the block that ends a cached part."""

MARKED_RESULTS: Final = 2
"""How many of the newest steps have their tools' results marked."""
