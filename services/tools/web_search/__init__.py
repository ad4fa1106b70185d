"""The `web_search` tool: searches with Brave's search engine, within a plan's quota.

Processes that only list tools import `definition.py`: `tool.py` needs an HTTP client.
"""
