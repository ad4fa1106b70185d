"""MCP servers: how administrators register them, how their tools are listed and called.

The package `mcp` takes the better part of a second to import, so only what speaks with servers
does that (`connection.py`, `calling.py`, `results.py` and what they are made of), and nothing but
the first refresh or call imports those, in a thread.
"""
