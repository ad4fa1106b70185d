"""Outgoing requests of tools and alerts: addresses checked, responses limited.

Webhooks, MCP over HTTP with its tokens, and the search engine use this package: `client.py` for
single requests, `transport.py` for an httpx2 client, `signatures.py` for Standard Webhooks. Model
and embedding providers don't: their addresses are chosen by the operator.
"""
