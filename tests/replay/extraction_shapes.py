"""Shapes that the history of a memory extraction can take."""

import json
from typing import Final
from uuid import UUID

from schema.ids import ChatId, TurnId, UserId
from schema.names import EXTRACT_MEMORIES
from schema.turns import TurnReference
from tests.fakes.scripted_model.scripts import Script
from tests.replay.scene import SECRET, Scene

_LIKES: Final = f"I like {SECRET}"
_NOTED: Final = json.dumps({"memories": [{"content": f"Likes {SECRET}.", "quote": _LIKES}]})


async def extraction_that_suggests(scene: Scene) -> str:
    return await _extracted(scene, _LIKES, Script(text=_NOTED))


async def extraction_of_nothing(scene: Scene) -> str:
    return await _extracted(scene, f"> {_LIKES}")


async def extraction_that_is_retried(scene: Scene) -> str:
    return await _extracted(
        scene, f"{_LIKES} again", Script(status=529, retry_after=0), Script(text=_NOTED)
    )


async def extraction_of_a_failing_provider(scene: Scene) -> str:
    failing = Script(status=529, retry_after=0, repeat=3)
    return await _extracted(scene, f"{_LIKES} once more", failing)


async def _extracted(scene: Scene, said: str, *reading: Script) -> str:
    """Let a turn end, and be read by these scripts; return the workflow that read it."""
    turn_id = (await scene.play(said, Script(text="I see."))).removeprefix("turn-")
    scene.answer_by(said, *reading)
    [turn] = await scene.everturn.query(
        "SELECT chat_id, user_id, model FROM turns WHERE id = $1::text::uuid", turn_id
    )
    reference = TurnReference(
        turn_id=TurnId(UUID(turn_id)),
        chat_id=ChatId(turn["chat_id"]),
        user_id=UserId(turn["user_id"]),
        model=turn["model"],
    )
    return await scene.run_in_background(EXTRACT_MEMORIES, reference)


SHAPES: Final = (
    extraction_that_suggests,
    extraction_of_nothing,
    extraction_that_is_retried,
    extraction_of_a_failing_provider,
)
