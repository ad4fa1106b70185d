"""The rules of the demo model: tool calls, quotes, and a note that it is a demo."""

import json
import re
from collections.abc import Iterator
from html import unescape
from textwrap import shorten

from workers.demo_model.answers import Block, text_block, thinking_block, tool_use_block
from workers.demo_model.arithmetic import find_arithmetic
from workers.demo_model.examples import example_of
from workers.demo_model.memories import find_memories
from workers.demo_model.prompt import Attached, Prompt, Source, ToolOutcome
from workers.demo_model.questions import WantedCall, find_call, find_clock_question, find_phrase

_WRAPPED = re.compile(r"\s*<([\w-]+)[^>]*>\s*(.*?)\s*</\1>\s*", re.DOTALL)
_ASKED = re.compile(r"<user>\n(.*?)\n</user>", re.DOTALL)
_SUMMARIZED = re.compile(r"<conversation_summary>\n(.*?)\n</conversation_summary>", re.DOTALL)
_ASKED = re.compile(r"^<user>\n(.*?)\n</user>$", re.DOTALL | re.MULTILINE)
_QUOTED_CHARS = 200
_LINES = 20
_TITLE_WORDS = 6
_THOUGHT = "A demo does not think: it looks for a rule that fits the question “{}”."
_COMMON_WORDS = frozenset(
    [
        "about",
        "all",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "his",
        "how",
        "if",
        "in",
        "is",
        "it",
        "its",
        "know",
        "me",
        "my",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "please",
        "say",
        "she",
        "should",
        "so",
        "some",
        "tell",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "us",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "yes",
        "you",
        "your",
    ]
)


def blocks_by_rules(prompt: Prompt) -> tuple[Block, ...]:
    """Return the answer: from tool results if there are any, else tool calls, else a text.

    A thought comes first where thinking was asked for.
    """
    return (*_thoughts(prompt), *_answer(prompt))


def _thoughts(prompt: Prompt) -> Iterator[Block]:
    if prompt.thinking != "no":
        thought = _THOUGHT.format(_quoted(prompt.question)) if prompt.thinking == "shown" else ""
        yield thinking_block(thought)


def _answer(prompt: Prompt) -> tuple[Block, ...]:
    if prompt.wants_memories or prompt.wants_title or prompt.wants_summary:
        return (text_block(_notes(prompt)),)
    if prompt.outcomes:
        said = _report(prompt.outcomes)
        return (text_block(said if prompt.schema is None else _value_in_json(prompt, said=said)),)
    if wanted := find_call(prompt.question, offered=prompt.tools):
        return (_called(wanted, prompt),)
    if calls := tuple(_tool_calls(prompt)):
        return calls
    if prompt.schema is not None:
        return (text_block(_value_in_json(prompt)),)
    source = _best_source(prompt)
    return (text_block(_introduction(prompt) if source is None else _quote(source)),)


def _summary(material: str) -> str:
    """List what the person asked, as `services/compaction.py` writes it, behind what is known."""
    before = _SUMMARIZED.search(material)
    asked = (f"- {shorten(said, _QUOTED_CHARS)}" for said in _ASKED.findall(material))
    lines = before[1].splitlines() if before else ["The demo model lists what was asked:"]
    return "\n".join((*lines, *asked)[-_LINES:])


def _title(conversation: str) -> str:
    """Return the first words of what the person wrote, as `services/titles.py` passes it on."""
    found = _ASKED.search(conversation)
    words = unescape(found[1] if found else conversation).split()[:_TITLE_WORDS]
    title = " ".join(words).rstrip(".,;:!?")
    return title[:1].upper() + title[1:]


def _best_source(prompt: Prompt) -> Source | None:
    """Return the source that shares most words with the question, None where none shares any.

    Of equals the first one: they come in the order in which search ranked them.
    """
    asked = _words(prompt.question)
    best = max(prompt.sources, key=lambda source: _shared(asked, source), default=None)
    return best if best is not None and _shared(asked, best) else None


def _shared(asked: frozenset[str], source: Source) -> int:
    return len(asked & _words(f"{source.title} {source.content}"))


def _words(text: str) -> frozenset[str]:
    """Return the words that say what a text is about, without the commonest and a plural's s."""
    words = re.findall(r"\w{2,}", text.casefold())
    return frozenset(word.removesuffix("s") for word in words if word not in _COMMON_WORDS)


def _quote(source: Source) -> str:
    origin = f"the document “{source.title}”" if source.title else "your memories"
    return (
        f"From {origin}: “{_quoted(source.content)}” "
        "(I am the demo model: I quote what fits. Set ANTHROPIC_API_KEY for a language model.)"
    )


def _called(wanted: WantedCall, prompt: Prompt) -> Block:
    if wanted.name not in prompt.tools:
        offered = ", ".join(sorted(prompt.tools)) or "none"
        return text_block(f"The tool {wanted.name} is not available. Available tools: {offered}.")
    if wanted.input is None:
        return text_block(f"The text after “call {wanted.name}” is not a JSON object.")
    return tool_use_block(wanted.name, wanted.input)


def _tool_calls(prompt: Prompt) -> Iterator[Block]:
    wanted = find_phrase(prompt.question, offered=prompt.tools)
    if wanted is not None and wanted.input is not None:
        yield tool_use_block(wanted.name, wanted.input)
        return
    if "calculator" in prompt.tools and (expression := find_arithmetic(prompt.question)):
        yield tool_use_block("calculator", {"expression": expression})
    if "datetime" in prompt.tools and (zone := find_clock_question(prompt.question)):
        yield tool_use_block("datetime", {"operation": "now", "timezone": zone})


def _notes(prompt: Prompt) -> str:
    if prompt.wants_title:
        return _title(prompt.question)
    if prompt.wants_summary:
        return _summary(prompt.question)
    return json.dumps({"memories": find_memories(prompt.question)}, ensure_ascii=False)


def _value_in_json(prompt: Prompt, *, said: str = "") -> str:
    """Return a small value that fits the schema; its texts are what was said."""
    value = example_of(prompt.schema or {}, text=said or _quoted(prompt.question))
    return json.dumps(value, ensure_ascii=False)


def _introduction(prompt: Prompt) -> str:
    return (
        "I am the demo model: I follow a few rules and am not a language model. "
        f"{_what_was_written(prompt.question)} {_what_was_attached(prompt.attached)}"
        f"{_what_came_before(prompt.earlier_messages)} "
        "Set ANTHROPIC_API_KEY and start Everturn again to talk to a real one."
    )


def _what_was_written(question: str) -> str:
    if not question.strip():
        return "You wrote no text."
    return f"You wrote “{_quoted(question)}”."


def _what_was_attached(attached: tuple[Attached, ...]) -> str:
    if not attached:
        return ""
    files = (f"“{_quoted(file.name)}” ({file.kind}, {file.size:,} bytes)" for file in attached)
    return f"You attached {', '.join(files)}: I can see that, but not what it shows. "


def _what_came_before(earlier_messages: int) -> str:
    if earlier_messages == 0:
        return "I can see no earlier message."
    return f"I can see {earlier_messages} earlier message{'s' * (earlier_messages > 1)}."


def _report(outcomes: tuple[ToolOutcome, ...]) -> str:
    return f"The demo model's tools say: {'; '.join(map(_finding, outcomes))}."


def _finding(outcome: ToolOutcome) -> str:
    said = _quoted(_unwrapped(outcome.output)).rstrip(".")
    if outcome.failed:
        return f"{outcome.name} failed with “{said}”"
    match outcome.name, outcome.input:
        case "calculator", {"expression": expression}:
            return f"{expression} = {said}"
        case "datetime", {"timezone": zone}:
            return f"in {zone} it is {said}"
        case _:
            return f"{outcome.name} answered “{said}”"


def _unwrapped(output: str) -> str:
    """Take a tool's result out of the marks and the JSON object that it may be wrapped in."""
    wrapped = _WRAPPED.fullmatch(output)
    inner = wrapped[2] if wrapped else output
    try:
        parsed = json.loads(inner)
    except ValueError:
        return inner
    return str(parsed["result"]) if isinstance(parsed, dict) and "result" in parsed else inner


def _quoted(text: str) -> str:
    return shorten(text, _QUOTED_CHARS, placeholder=" …")
