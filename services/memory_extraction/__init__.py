"""Memory extraction: after a turn a model suggests what is worth remembering of what its user said.

It learns from the user's own words alone: not from an answer, a tool, a document, or a quote.
"""
