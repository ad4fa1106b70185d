"""Owns how parts of a turn read as one line; how lines reach the terminal is the screens'."""

import json

from pydantic import JsonValue

from workers.terminal_chat.events import ToolCall
from workers.terminal_chat.transcript import Transcript

_SHORT = 60
# Control characters would steer the terminal, so their pictures are shown in their place.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def harmless(text: str) -> str:
    """Return `text` with every control character but newline and tab made visible."""
    return text.translate(_PICTURES)


def shortened(text: str, *, limit: int = _SHORT) -> str:
    """Return `text` on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def tool_line(call: ToolCall) -> str:
    """Return a tool call as its name, input, status and output."""
    parts = [f"{call.name} {_value(call.input)}".strip(), call.status.replace("_", " ")]
    if call.output is not None:
        parts.append(_value(call.output))
    return "⚙ " + " · ".join(parts)


def summary_line(transcript: Transcript) -> str:
    """Return what a finished turn took: model, tokens and cost, as far as they are known."""
    done = transcript.done
    parts = [transcript.model] if transcript.model else []
    if done is not None and done.status == "cancelled":
        parts.append("stopped")
    if done is not None and done.usage is not None:
        usage = done.usage
        cached = f" + {usage.cache_read_tokens} cached" if usage.cache_read_tokens else ""
        parts.append(f"{usage.input_tokens}{cached} in, {usage.output_tokens} out")
    if done is not None and done.cost_usd is not None:
        parts.append(f"${done.cost_usd.normalize():f}")
    return " · ".join(parts)


def failure_line(transcript: Transcript) -> str | None:
    """Return why the turn failed, or None if it did not."""
    if transcript.error is not None:
        return f"✗ {transcript.error.message} ({transcript.error.code})"
    if transcript.done is not None and transcript.done.status == "failed":
        return "✗ The turn failed."
    return None


def _value(value: JsonValue) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text)
