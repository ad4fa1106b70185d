"""Asking the person to approve a tool call: what they see, and what they may decide."""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from everturn_client import ToolCallEvent
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.screen import Screen

AWAITING = "awaiting_approval"
_QUESTION = "Allow it? [y]es, [n]o, [a]lways in this chat, [e]dit the input: "
_SHOWN_LINES = 60
_SHOWN_CHARS = 6_000
_REASON_CHARS = 2_000
# Characters that are invisible or change the text around them: no call may look like another.
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}


@dataclass(frozen=True)
class Decision:
    """A decision; an approval may have another `input`, a denial a `reason`."""

    decision: Literal["approve", "deny"]
    reason: str = ""
    input: Mapping[str, JsonValue] | None = None
    remember_for_chat: bool = False


class ApprovalPrompt:
    """Asks at the keyboard until there is a decision."""

    def __init__(self, screen: Screen, keyboard: Keyboard) -> None:
        self._screen = screen
        self._keyboard = keyboard

    def ask(self, call: ToolCallEvent) -> Decision | None:
        """Return the decision about a call, or None at the end of the input.

        Errors: KeyboardInterrupt for Ctrl-C.
        """
        self._screen.line(f"The assistant wants to use {spelled_out(call.name)} with", style="bold")
        self._screen.line(shown_input(call.input))
        decision: Decision | Literal["again"] | None = "again"
        while decision == "again":
            decision = self._choice()
        return decision

    def _choice(self) -> Decision | Literal["again"] | None:
        answer = self._keyboard.ask(_QUESTION)
        match answer and answer.strip().lower():
            case None:
                return None
            case "y" | "yes":
                return Decision("approve")
            case "a" | "always":
                return Decision("approve", remember_for_chat=True)
            case "n" | "no":
                return self._denial()
            case "e" | "edit":
                return self._edited()
            case _:
                return "again"

    def _denial(self) -> Decision:
        reason = self._keyboard.ask("Reason for the assistant (optional): ") or ""
        return Decision("deny", reason=_storable(reason)[:_REASON_CHARS])

    def _edited(self) -> Decision | Literal["again"]:
        typed = self._keyboard.ask("New input, as a JSON object on one line: ") or ""
        try:
            edited = json.loads(typed)
        except (ValueError, RecursionError) as error:
            self._screen.line(f"Invalid JSON: {error}", style="red")
            return "again"
        if not isinstance(edited, dict):
            self._screen.line("Not a JSON object.", style="red")
            return "again"
        return Decision("approve", input=edited)


def how_to_decide(call: ToolCallEvent, *, url: str) -> str:
    """Return how to decide at `url`, without a person to ask."""
    return (
        f"{spelled_out(call.name)} awaits approval. To approve it:\n"
        f"curl -X POST {url} -H 'Authorization: Bearer <access token>' "
        "-H 'Content-Type: application/json' -d '{\"decision\": \"approve\"}'\n"
        'To deny it, send {"decision": "deny"}. The answer continues here.'
    )


def shown_input(value: JsonValue) -> str:
    """Return an input on indented lines, with every character visible; a long one is cut."""
    pretty = spelled_out(json.dumps(value, ensure_ascii=False, indent=2))
    lines = pretty[:_SHOWN_CHARS].splitlines()[:_SHOWN_LINES]
    shown = "\n".join(f"  {line}" for line in lines)
    if len("\n".join(lines)) < len(pretty):
        shown += f"\n  … truncated; the whole input has {len(pretty):,} characters"
    return shown


def spelled_out(text: str) -> str:
    """Return a text with its invisible characters written as escapes."""
    return "".join(_spelled_out(char) for char in text)


def _spelled_out(char: str) -> str:
    if char == "\n" or unicodedata.category(char) not in _HIDDEN_CATEGORIES:
        return char
    return f"\\u{ord(char):04x}"


def _storable(text: str) -> str:
    """Return what was typed, without what JSON and Postgres can't hold."""
    return text.encode(errors="replace").decode().replace("\x00", "").strip()
