"""Shapes that the history of a batch of works after turns can take."""

import json
from typing import Final

from schema.names import WORK_BATCH
from tests.fakes.scripted_model.scripts import Script
from tests.replay.scene import SECRET, Scene

_LIKES: Final = f"I like {SECRET}"
_NOTED: Final = json.dumps({"memories": [{"content": f"Likes {SECRET}.", "quote": _LIKES}]})


async def batch_of_works(scene: Scene) -> str:
    await _no_works(scene)
    for question in (_LIKES, f"{_LIKES} once more"):
        await scene.play(question, Script(text="I see."), Script(text=_NOTED))
    return await scene.run_in_background(WORK_BATCH)


async def batch_of_works_that_fail(scene: Scene) -> str:
    await _no_works(scene)
    failing = Script(status=401, repeat=3)
    await scene.play(f"{_LIKES} in vain", Script(text="I see."), failing)
    return await scene.run_in_background(WORK_BATCH)


async def batch_that_finds_nothing(scene: Scene) -> str:
    await _no_works(scene)
    return await scene.run_in_background(WORK_BATCH)


async def _no_works(scene: Scene) -> None:
    await scene.everturn.query("DELETE FROM due_works")


SHAPES: Final = (batch_of_works, batch_of_works_that_fail, batch_that_finds_nothing)
