"""Deterministic orchestration; no module in here does any I/O."""
