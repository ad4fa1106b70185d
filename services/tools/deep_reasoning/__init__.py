"""The `deep_reasoning` tool: a stronger model thinks about one question.

Where tools are only listed, `definition.py` is enough: `tool.py` needs the provider's package.
"""
