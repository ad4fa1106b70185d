"""Outgoing requests of tools: addresses checked, responses limited.

Webhooks, MCP over HTTP with its tokens, and the search engine use this package: `client.py` for
single requests, `transport.py` for an httpx2 client. Model and embedding providers don't: their
addresses are chosen by the operator.
"""
