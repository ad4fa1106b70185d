"""Records a chat that survives a killed worker, as an animated SVG: `make recording`.

Runs `everturn dev` on a scripted model, kills the worker that answers with SIGKILL in mid-answer,
and draws what the client saw, when it saw it.
"""

import asyncio
import html
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.client import Client, rebuild
from tests.running_everturn.process import everturn_dev
from tests.running_everturn.stack import scripted_model

QUESTION: Final = "Why is the sky blue?"
ANSWER: Final = ("The sky is blue ", "because air scatters ", "blue light more than red.")

_PROMPT, _EVENT, _KILL, _RESULT = "prompt", "event", "kill", "result"
_CHAR, _LINE, _MARGIN = 8.4, 22, 24
_COLUMNS: Final = 104
_STYLE: Final = """\
rect { fill: #0f172a; }
text { font: 14px ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", Consolas, monospace;
  white-space: pre; fill: #cbd5e1; }
.prompt { fill: #f8fafc; font-weight: bold; }
.kill { fill: #f87171; font-weight: bold; }
.result { fill: #4ade80; }
.time { fill: #64748b; }
@media (prefers-reduced-motion: no-preference) {
  .line { animation: appear 0.1s both; }
  @keyframes appear { from { opacity: 0; } to { opacity: 1; } }
}
"""


class Line(NamedTuple):
    """A line of the terminal, and how long after the start it appeared."""

    at_s: float
    kind: str
    text: str


async def record() -> list[Line]:
    """Return the session. Errors: AssertionError if the answer is not the stored one."""
    lines: list[Line] = []
    script = Script(match=QUESTION, pieces=ANSWER, delay_between_s=0.6)
    async with scripted_model() as (model, url):
        model.add(script.model_copy(update={"hold": "until killed", "hold_after": 2}))
        model.add(script)
        with tempfile.TemporaryDirectory(prefix="everturn-recording-") as folder:
            settings = {"ANTHROPIC_API_KEY": "scripted", "ANTHROPIC_BASE_URL": url}
            async with (
                everturn_dev(Path(folder), ephemeral=True, **settings) as everturn,
                Client.signed_up(everturn.addresses["api"]) as client,
            ):
                chat_id = await client.new_chat()
                begun = time.monotonic()

                def note(kind: str, text: str) -> None:
                    lines.append(Line(time.monotonic() - begun, kind, text))

                note(_PROMPT, f"$ curl -N $api/chats/$chat/messages -d '{_json_of(QUESTION)}'")
                async with client.ask(QUESTION, chat_id=chat_id) as stream:
                    while (event := await stream.next()) is not None:
                        note(_EVENT, _shown(event.name, event.data))
                        if rebuild(stream.events) == "".join(ANSWER[:2]) and _KILL not in {
                            line.kind for line in lines
                        }:
                            pid = everturn.pids()["worker-turns"]
                            note(_KILL, f"$ kill -9 {pid}   # the worker, in mid-answer")
                            os.kill(pid, signal.SIGKILL)
                    answer = rebuild(stream.events)
                stored = (await client.messages(chat_id))[-1]["content"]
                assert answer == stored == "".join(ANSWER)
                note(_RESULT, "The client's text equals the stored message, byte for byte.")
    return lines


def drawn(lines: Sequence[Line]) -> str:
    """Return the session as an SVG whose lines appear when they did; still where motion is off."""
    width = round(_COLUMNS * _CHAR + 2 * _MARGIN)
    height = (len(lines) + 1) * _LINE + _MARGIN
    rows = [
        f'<g class="line" style="animation-delay: {line.at_s:.2f}s">'
        f'<text class="time" x="{_MARGIN}" y="{(row + 1) * _LINE + _MARGIN / 2:.0f}">'
        f"{line.at_s:5.2f} s</text>"
        f'<text class="{line.kind}" x="{_MARGIN + 9 * _CHAR:.0f}" '
        f'y="{(row + 1) * _LINE + _MARGIN / 2:.0f}">{html.escape(line.text)}</text></g>'
        for row, line in enumerate(lines)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            "<title>A chat that survives a killed worker</title>",
            f"<style>\n{_STYLE}</style>",
            f'<rect width="{width}" height="{height}" rx="8"/>',
            *rows,
            "</svg>\n",
        ]
    )


def _shown(name: str, data: dict[str, object]) -> str:
    """Return an event in one line, with the fields that matter here."""
    if name == "step":
        shown = f"step {data['step']}, attempt {data['attempt']}, {data['model']}"
    elif name == "delta":
        shown = f'"{data["text"]}"'
    elif name == "usage":
        shown = f"attempt {data['attempt']}: {data['outputTokens']} tokens, {data['costUsd']} USD"
    else:
        shown = str(data.get("status", ""))
    return f"event: {name:<6} {shown}".rstrip()


def _json_of(content: str) -> str:
    return f'{{"content": "{content}", "stream": true}}'


async def _main(file: Path) -> None:
    lines = await record()
    await asyncio.to_thread(file.write_text, drawn(lines))
    print("\n".join(f"{line.at_s:6.2f} s  {line.text}" for line in lines))


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
