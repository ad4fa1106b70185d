"""The `web_search` tool: what Brave's search engine finds for a query, within a plan's quota.

Where tools are only listed, `definition.py` is enough: `tool.py` needs a client of HTTP.
"""
