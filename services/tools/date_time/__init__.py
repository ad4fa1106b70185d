"""The `datetime` tool: the time now, in other zones, between two moments and after a while."""

from services.tools.date_time.tool import DateTime

__all__ = ["DateTime"]
