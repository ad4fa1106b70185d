"""Owns asking the person about a tool call: what they are shown, and what they may decide."""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from workers.terminal_chat.events import ToolCall
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.screen import Screen

AWAITING = "awaiting_approval"
_QUESTION = "Allow it? [y]es, [n]o, [a]lways in this chat, [e]dit the input: "
_SHOWN_LINES = 60
_SHOWN_CHARS = 6_000
_REASON_CHARS = 2_000
# What changes how the text around it looks, or can't be seen: a call must not pass for another.
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}


@dataclass(frozen=True)
class Decision:
    """What the person decided; another `input` goes with an approval, a `reason` with a denial."""

    decision: Literal["approve", "deny"]
    reason: str = ""
    input: Mapping[str, JsonValue] | None = None
    remember_for_chat: bool = False

    def body(self) -> dict[str, JsonValue]:
        """Return the body of the request that tells the API."""
        body: dict[str, JsonValue] = {"decision": self.decision}
        if self.reason:
            body["reason"] = self.reason
        if self.input is not None:
            body["input"] = dict(self.input)
        if self.remember_for_chat:
            body["rememberForChat"] = True
        return body


class ApprovalPrompt:
    """Asks at the keyboard until there is a decision."""

    def __init__(self, screen: Screen, keyboard: Keyboard) -> None:
        self._screen = screen
        self._keyboard = keyboard

    def ask(self, call: ToolCall) -> Decision | None:
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
        reason = self._keyboard.ask("Why not? The assistant is told; may be empty: ") or ""
        return Decision("deny", reason=_storable(reason)[:_REASON_CHARS])

    def _edited(self) -> Decision | Literal["again"]:
        typed = self._keyboard.ask("The input as a JSON object on one line: ") or ""
        try:
            edited = json.loads(typed)
        except (ValueError, RecursionError) as error:
            self._screen.line(f"That is no JSON: {error}", style="red")
            return "again"
        if not isinstance(edited, dict):
            self._screen.line("That is no JSON object.", style="red")
            return "again"
        return Decision("approve", input=edited)


def how_to_decide(call: ToolCall, *, url: str) -> str:
    """Return how a call is decided about at `url`, where nobody can be asked here."""
    return (
        f"{spelled_out(call.name)} waits for a decision, as somebody signed in can send it:\n"
        f"curl -X POST {url} -H 'Authorization: Bearer <access token>' "
        "-H 'Content-Type: application/json' -d '{\"decision\": \"approve\"}'\n"
        'or {"decision": "deny"}; the answer goes on here.'
    )


def shown_input(value: JsonValue) -> str:
    """Return an input on indented lines, with every character to be seen; a long one is cut."""
    pretty = spelled_out(json.dumps(value, ensure_ascii=False, indent=2))
    lines = pretty[:_SHOWN_CHARS].splitlines()[:_SHOWN_LINES]
    shown = "\n".join(f"  {line}" for line in lines)
    if len("\n".join(lines)) < len(pretty):
        shown += f"\n  … cut here: the whole input has {len(pretty):,} characters"
    return shown


def spelled_out(text: str) -> str:
    """Return a text whose characters that can't be seen stand as their codes."""
    return "".join(_spelled_out(char) for char in text)


def _spelled_out(char: str) -> str:
    if char == "\n" or unicodedata.category(char) not in _HIDDEN_CATEGORIES:
        return char
    return f"\\u{ord(char):04x}"


def _storable(text: str) -> str:
    """Return what was typed without what no request can carry and no database can hold."""
    return text.encode(errors="replace").decode().replace("\x00", "").strip()
