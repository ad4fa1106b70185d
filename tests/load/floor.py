"""The floor: a plain proxy that streams from the same model and keeps nothing.

What it costs is what any Python server would cost; only what Everturn adds to it is Everturn's.
"""

import json
import sys
from collections.abc import AsyncIterator

import anthropic
import uvicorn
from anthropic.types import ContentBlockParam, MessageParam, ToolParam
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

_MODEL = "claude-haiku-5-5"
_MAX_TOKENS = 4096
_TOOL: ToolParam = {
    "name": "calculator",
    "description": "Evaluates an arithmetic expression exactly.",
    "input_schema": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
}


class MessageRequest(BaseModel):
    """A client's request."""

    content: str = Field(min_length=1)


def create_app(client: anthropic.AsyncAnthropic) -> FastAPI:
    """Return the proxy."""
    app = FastAPI()

    @app.post("/messages")
    async def send_message(request: MessageRequest) -> StreamingResponse:
        return StreamingResponse(_answer(client, request), media_type="text/event-stream")

    return app


async def _answer(client: anthropic.AsyncAnthropic, request: MessageRequest) -> AsyncIterator[str]:
    """Stream the answer; a tool call is answered with a constant, and the model asked again."""
    messages: list[MessageParam] = [{"role": "user", "content": request.content}]
    while True:
        called = ""
        stream = await client.messages.create(
            model=_MODEL, max_tokens=_MAX_TOKENS, messages=messages, tools=[_TOOL], stream=True
        )
        async for event in stream:
            if event.type == "content_block_start" and event.content_block.type == "tool_use":
                called = event.content_block.id
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield _frame("delta", {"text": event.delta.text})
        if not called:
            break
        messages += _tool_turn(called)
    yield _frame("done", {"status": "completed"})


def _tool_turn(called: str) -> list[MessageParam]:
    call: ContentBlockParam = {
        "type": "tool_use",
        "id": called,
        "name": "calculator",
        "input": {"expression": "6 * 7"},
    }
    result: ContentBlockParam = {"type": "tool_result", "tool_use_id": called, "content": "42"}
    return [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]


def _frame(name: str, data: dict[str, str]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    uvicorn.run(
        create_app(anthropic.AsyncAnthropic(max_retries=0)),
        port=int(sys.argv[1]),
        log_config=None,
        access_log=False,
    )
