"""MCP servers: registered by administrators, their tools listed and called by workers.

- `service.py`: registration. `refresh.py`: listing tools. `calls.py`: calling them, through the
  connections of `pool.py`, one for each of the `servers.py`.
- `connection.py` and what it imports connect to a server: `stdio.py`, `http.py` with `oauth.py`,
  `limits.py`, and `sdk.py`, the only module that imports the package `mcp`. That package takes the
  better part of a second to import, so only the first refresh or call does, in a thread.
"""
