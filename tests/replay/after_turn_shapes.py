"""Shapes that the history of the works after a turn can take."""

import json
from typing import Final
from uuid import UUID

from schema.after_turn import AfterTurnInput
from schema.ids import ChatId, TurnId, UserId
from schema.names import AFTER_TURN, Work
from schema.turns import TurnReference
from tests.fakes.scripted_model.scripts import Script
from tests.replay.scene import SECRET, Scene

_LIKES: Final = f"I like {SECRET}"
_NOTED: Final = json.dumps({"memories": [{"content": f"Likes {SECRET}.", "quote": _LIKES}]})


async def works_after_a_turn(scene: Scene) -> str:
    return await _after(scene, _LIKES, Script(text=_NOTED))


async def work_that_is_retried(scene: Scene) -> str:
    return await _after(
        scene, f"{_LIKES} again", Script(status=529, retry_after=0), Script(text=_NOTED)
    )


async def work_of_a_failing_provider(scene: Scene) -> str:
    failing = Script(status=529, retry_after=0, repeat=3)
    return await _after(scene, f"{_LIKES} once more", failing)


async def _after(scene: Scene, said: str, *reading: Script) -> str:
    """Let a turn end, and be read by these scripts; return the workflow of its works."""
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
    works = (Work.EXTRACT_MEMORIES, Work.TITLE_CHAT)
    return await scene.run_in_background(AFTER_TURN, AfterTurnInput(turn=reference, works=works))


SHAPES: Final = (works_after_a_turn, work_that_is_retried, work_of_a_failing_provider)
