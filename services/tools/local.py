"""Owns the list of the tools that ship with the worker."""

from services.tools.calculator import Calculator
from services.tools.date_time import DateTime
from services.tools.registry import ToolRegistry


def default_tools() -> ToolRegistry:
    """Return a registry of the tools that need nothing but this process."""
    return ToolRegistry([Calculator(), DateTime()])
