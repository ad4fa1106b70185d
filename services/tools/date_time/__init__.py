"""The `datetime` tool: the current time, conversions between zones, differences and sums."""

from services.tools.date_time.tool import DateTime

__all__ = ["DateTime"]
