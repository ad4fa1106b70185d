"""The `deep_reasoning` tool: a stronger model thinks about one question.

Processes that only list tools import `definition.py`: `tool.py` needs the provider's package.
"""
