"""Measures requests with JSON responses."""

from tests.load.report import Line, Report
from tests.load.samples import Request, spread
from tests.load.stage import Stage

_CLIENTS = 20
_TARGET_MS = 500


async def measure_api(stage: Stage, report: Report, *, count: int) -> None:
    """Measure how long 20 clients wait that ask without a pause."""
    for name, requests in (await _requests(stage, count)).items():
        await stage.client.run(requests[:_CLIENTS], concurrency=_CLIENTS)
        samples = await stage.client.run(requests, concurrency=_CLIENTS)
        waited = spread(sample.whole_ms for sample in samples)
        report.add(
            Line(
                name=f"{name}, {_CLIENTS} clients, p95",
                shape=stage.shape,
                value=waited.p95,
                target=_TARGET_MS,
            )
        )
        taken_s = max(s.ended for s in samples) - min(s.began for s in samples)
        report.note(f"{name}: p50 {waited.p50:.0f} ms, {count / taken_s:.0f} per second.")


async def _requests(stage: Stage, count: int) -> dict[str, list[Request]]:
    """Return the requests by name; those of one name read what belongs to several users."""
    await stage.script(text="An answer.", delay_to_first_s=0, repeat=_CLIENTS)
    chats = await stage.make_chats(_CLIENTS)
    messages = [stage.message(chat, "A question.") for chat in chats]
    answered = await stage.client.run(messages, concurrency=4)
    reads: dict[str, list[Request]] = {"GET /chats": [], "GET messages": [], "GET turn": []}
    for number in range(count):
        chat, turn = chats[number % _CLIENTS], answered[number % _CLIENTS]
        for name, path in (
            ("GET /chats", "chats"),
            ("GET messages", f"chats/{chat.id}/messages"),
            ("GET turn", f"turns/{turn.turn_id}"),
        ):
            request = Request(stage.api_port, f"/api/v1/{path}", token=chat.token)
            reads[name].append(request)
    return {**reads, "POST /chats": stage.chat_requests(count)}
