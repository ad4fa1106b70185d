"""Owns the error of speaking with an MCP server: a sentence for the administrator.

McpServerError    the server did not do what it has to; a fix of it or of its entry is needed
"""


class McpServerError(Exception):
    """What a server did wrong, in a sentence that quotes none of its secrets."""
