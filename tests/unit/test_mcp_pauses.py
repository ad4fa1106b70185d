"""How soon a server that could not be connected to is asked again."""

from unittest.mock import create_autospec

import pytest

from schema.tables import McpServerRow
from schema.tables.columns import utc_now
from services.mcp import servers
from services.mcp.errors import CallLostError, McpServerError, Outlook
from services.mcp.servers import ServerConnection, ServerHealth


@pytest.mark.parametrize(
    ("outlook", "pauses_s"), [("refused", [1, 1, 1, 1, 1, 1]), ("away", [1, 2, 4, 8, 15, 15])]
)
async def test_a_server_that_refuses_is_asked_again_sooner_than_one_that_is_away(
    monkeypatch: pytest.MonkeyPatch, *, outlook: Outlook, pauses_s: list[float]
) -> None:
    now_s, attempts = 100.0, 0
    monkeypatch.setattr(servers, "monotonic", lambda: now_s)

    async def connect(*_: object) -> None:
        nonlocal attempts
        attempts += 1
        raise McpServerError("No.", outlook=outlook)

    row = McpServerRow(name="server", transport="http", secrets=b"", updated_at=utc_now())
    server = ServerConnection(row, connect, create_autospec(ServerHealth))  # type: ignore[arg-type]

    seen = []
    for number in range(1, 1 + len(pauses_s)):
        with pytest.raises(CallLostError) as lost:
            await server.connection()
        assert attempts == number
        seen.append(lost.value.retry_after_s)
        now_s += pauses_s[number - 1] - 0.1
        with pytest.raises(CallLostError):
            await server.connection()
        assert attempts == number
        now_s += 0.2

    assert seen == pytest.approx(pauses_s)
