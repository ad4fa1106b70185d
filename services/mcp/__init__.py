"""MCP servers: how administrators register them, and how their tools are listed.

The package `mcp` takes the better part of a second to import, so only `listing.py` and what it
is made of do that, and nothing but the refresh imports them, when it first runs.
"""
