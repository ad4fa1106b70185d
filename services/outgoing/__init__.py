"""The one way out for what tools ask of others: addresses checked, answers bounded.

Webhooks, MCP over HTTP with its tokens, and the search engine go through here; the providers of
models and embeddings don't, for whoever runs the workers chose where those are.
"""
