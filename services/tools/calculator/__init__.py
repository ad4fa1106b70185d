"""The calculator: arithmetic on exact decimals with bounded work."""

from services.tools.calculator.tool import Calculator

__all__ = ["Calculator"]
