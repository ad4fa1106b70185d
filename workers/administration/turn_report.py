"""The screen of `everturn admin turn`: why a turn ended as it did, then all that is known of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from pydantic import JsonValue
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from everturn_client.admin_models import InspectedCharge, InspectedToolCall, InspectedTurn
from workers.terminal_chat.screen import harmless, shortened

_LONGEST_TEXT: Final = 300
_LONGEST_VALUE: Final = 160
_WORTH_TELLING: Final = 0.1
"""The share of a turn's time from which a part of it is among the reasons."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a turn that took time, or still does; `cost` is what was paid for it."""

    what: str
    begun: datetime
    ended: datetime | None
    outcome: str = ""
    tokens: str = ""
    cost: str = ""

    @property
    def seconds(self) -> float:
        """How long it took; 0 if it has not ended."""
        return 0.0 if self.ended is None else (self.ended - self.begun).total_seconds()


def turn_report(inspected: InspectedTurn, *, owner: str) -> RenderableType:
    """Return the screen for a turn of the user `owner`."""
    spans = sorted(_spans(inspected), key=lambda span: span.begun)
    return Group(
        *_why(inspected, spans, owner),
        _times(inspected, spans),
        *_tools(inspected.tool_calls),
        *_prompt(inspected),
        *_ledger(inspected.charges),
        *_conversation(inspected),
        _elsewhere(inspected),
    )


def _why(inspected: InspectedTurn, spans: Sequence[Span], owner: str) -> Iterator[Text]:
    turn = inspected.turn
    reason = turn.status.replace("_", " ")
    if turn.error is not None:
        reason += f" · {turn.error.code}: {turn.error.message}"
    style = {"completed": "bold green", "failed": "bold red"}.get(turn.status, "bold yellow")
    yield _text(reason, style)
    yield _text(
        f"{owner} asked {turn.model} at {turn.created_at:%Y-%m-%d %H:%M:%S} UTC. "
        f"{_spent(inspected)}."
    )
    for problem in _problems(inspected):
        yield _text(f"• {problem}", "yellow")
    if turn.finished_at is None:
        for span in spans:
            if span.ended is None:
                yield _text(f"• Now: {span.what}, since {span.begun:%H:%M:%S} UTC", "yellow")
        return
    took = (turn.finished_at - turn.created_at).total_seconds()
    slowest = sorted(spans, key=lambda span: span.seconds, reverse=True)[:3]
    told = [span for span in slowest if took and span.seconds / took >= _WORTH_TELLING]
    parts = ", ".join(f"{span.seconds:.2f} s {span.what}" for span in told)
    yield _text(f"It took {took:.2f} s: {parts}." if parts else f"It took {took:.2f} s.")


def _spent(inspected: InspectedTurn) -> str:
    """Return the tokens and the cost; of a turn that has not ended, what is settled so far."""
    turn = inspected.turn
    usages, cost_usd, so_far = [turn.usage], turn.cost_usd, ""
    if turn.finished_at is None:
        charges = [charge for charge in inspected.charges if charge.kind != "extraction"]
        usages, so_far = [charge.usage for charge in charges], " so far"
        cost_usd = sum((charge.cost_usd for charge in charges), start=Decimal())
    tokens_in = sum(usage.input_tokens for usage in usages)
    tokens_out = sum(usage.output_tokens for usage in usages)
    cached = sum(usage.cache_read_tokens + usage.cache_write_tokens for usage in usages)
    return (
        f"{tokens_in:,} tokens in, {tokens_out:,} out, {cached:,} cached: {cost_usd:f} USD{so_far}"
    )


def _problems(inspected: InspectedTurn) -> Iterator[str]:
    """Yield what went wrong on the way, whether or not the turn failed for it."""
    attempts = [charge for charge in inspected.charges if charge.kind == "model"]
    failed = [charge for charge in attempts if charge.status in {"failed", "lost"}]
    if failed:
        models = ", ".join(sorted({charge.model for charge in failed}))
        yield f"{len(failed)} of {len(attempts)} model attempts failed ({models})"
    others = sorted({charge.model for charge in attempts} - {inspected.turn.model})
    if others:
        yield f"the fallback model was called: {', '.join(others)}"
    for call in inspected.tool_calls:
        if call.status in {"failed", "denied"}:
            said = shortened(call.output or "no output", limit=_LONGEST_VALUE)
            yield f"{call.name} {call.status} in step {call.step}: {said}"
    prompt = inspected.prompt or {}
    missing = prompt.get("missing")
    if isinstance(missing, list):
        yield f"left out of the prompt: {', '.join(map(str, missing))}"


def _spans(inspected: InspectedTurn) -> Iterator[Span]:
    turn = inspected.turn
    attempts = [charge for charge in inspected.charges if charge.kind == "model"]
    yield Span("waiting to start", turn.created_at, turn.started_at or turn.finished_at)
    if turn.started_at is not None and attempts:
        first = min(charge.created_at for charge in attempts)
        yield Span("preparing the prompt", turn.started_at, max(first, turn.started_at))
    yield from map(_span_of_attempt, attempts)
    for call in inspected.tool_calls:
        yield from _spans_of_call(call)


def _span_of_attempt(charge: InspectedCharge) -> Span:
    usage = charge.usage
    return Span(
        f"model call {charge.step}.{charge.attempt} · {charge.model}",
        charge.created_at,
        charge.settled_at,
        charge.status,
        f"{usage.input_tokens:,} in, {usage.output_tokens:,} out",
        f"{charge.cost_usd:f}",
    )


def _spans_of_call(call: InspectedToolCall) -> Iterator[Span]:
    has_asked = call.decision is not None or call.expires_at is not None
    waited_for = "approval of" if has_asked else "worker for"
    yield Span(
        f"waiting for {waited_for} {call.name} · step {call.step}",
        call.created_at,
        call.started_at or call.finished_at,
        call.decision or "",
    )
    if call.started_at is not None:
        cost = f"{call.cost_usd:f}" if call.cost_usd else ""
        what = f"{call.name} · step {call.step}"
        yield Span(what, call.started_at, call.finished_at, call.status, cost=cost)


def _times(inspected: InspectedTurn, spans: Sequence[Span]) -> Table:
    table = _table("times", "after", "took", "what", "outcome", "tokens", "USD")
    for span in spans:
        after = (span.begun - inspected.turn.created_at).total_seconds()
        took = "…" if span.ended is None else f"{span.seconds:.3f} s"
        cells = (f"{after:.3f} s", took, span.what, span.outcome, span.tokens, span.cost)
        table.add_row(*map(_text, cells))
    return table


def _tools(calls: Sequence[InspectedToolCall]) -> Iterator[Table]:
    if not calls:
        return
    table = _table("tools", "step", "tool", "status", "attempts", "input", "output")
    for call in calls:
        given = call.input if call.edited_input is None else call.edited_input
        cells = (str(call.step), call.name, call.status, str(call.attempts))
        table.add_row(*map(_text, (*cells, _bounded(given), _bounded(call.output or ""))))
    yield table


def _prompt(inspected: InspectedTurn) -> Iterator[Text]:
    prompt = inspected.prompt or {}
    tokens = prompt.get("tokens")
    if isinstance(tokens, dict):
        layers = ", ".join(f"{name} {count:,}" for name, count in tokens.items())
        yield _text(f"prompt {prompt.get('version')} · estimated tokens: {layers}\n")


def _ledger(charges: Sequence[InspectedCharge]) -> Iterator[Table]:
    if not charges:
        return
    table = _table("ledger", "step", "attempt", "kind", "model", "status", "tokens", "USD")
    for charge in charges:
        usage = charge.usage
        counts = (usage.input_tokens, usage.output_tokens)
        cached = (usage.cache_read_tokens, usage.cache_write_tokens)
        status = f"{charge.status}, estimated" if charge.estimated else charge.status
        cells = (str(charge.step), str(charge.attempt), charge.kind, charge.model, status)
        tokens = "/".join(f"{count:,}" for count in (*counts, *cached))
        table.add_row(*map(_text, (*cells, tokens, f"{charge.cost_usd:f}")))
    yield table


def _conversation(inspected: InspectedTurn) -> Iterator[Text]:
    for message in inspected.messages:
        said = shortened(message.content, limit=_LONGEST_TEXT)
        yield _text(f"{message.role}: {said}")


def _elsewhere(inspected: InspectedTurn) -> Text:
    request = inspected.request_id
    where = f"\nIn the logs: turn_id {inspected.turn.id}"
    where += f", request_id {request}. " if request else ". "
    where += f"In Temporal: {inspected.workflow_id}. All of it: --json."
    if inspected.superseded_by is not None:
        where += f"\nAnswered again by turn {inspected.superseded_by}."
    return _text(where, "dim")


def _bounded(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text, limit=_LONGEST_VALUE)


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)


def _text(text: str, style: str = "") -> Text:
    return Text(harmless(text), style=style, overflow="fold")
