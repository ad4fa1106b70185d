"""How the model counts prompts, and how long one may be."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from workers.demo_model.answers import input_tokens_of
from workers.demo_model.prompt import JsonObject
from workers.demo_model.wire import Refusal, encode_json


@dataclass(slots=True)
class Counting:
    """A tokenizer, a context window, and the manners of the endpoint that counts.

    `count` is the tokenizer. Without `window` a prompt may be of any length. `answer` takes the
    place of what the endpoint counts; a `held` endpoint answers nothing. `asked` are its requests.
    """

    count: Callable[[JsonObject], int] = input_tokens_of
    window: int | None = None
    answer: bytes | None = None
    status: int = 200
    held: bool = False
    asked: int = 0

    def refusal(self, body: JsonObject) -> Refusal | None:
        """Return the refusal of a prompt that is too long."""
        if self.window is None:
            return None
        tokens = self.count(body) + body["max_tokens"]
        if tokens <= self.window:
            return None
        return Refusal(400, f"prompt is too long: {tokens} tokens > {self.window} maximum")

    async def counted(self, body: JsonObject, request: Request) -> Response:
        """Return the endpoint's answer; a held one waits until its client has left."""
        self.asked += 1
        while self.held and (await request.receive())["type"] != "http.disconnect":
            pass
        content = self.answer or encode_json({"input_tokens": self.count(body)})
        return Response(content, self.status, media_type="application/json")
