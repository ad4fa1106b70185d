"""Memories are found well enough: a gate on the set of `make eval`, with the embedded model."""

from schema.actors import Actor
from tests.evaluation.retrieval import Retrieval, retrieval_set
from tests.fixtures.actors import actor_of
from tests.fixtures.stack import Stack


async def test_memories_are_found_by_the_questions_of_the_set(stack: Stack) -> None:
    async def new_user() -> Actor:
        return actor_of(await stack.sign_up())

    services = stack.services.memories
    found = retrieval_set()
    retrieval = Retrieval(services.store, services.search, new_user)

    quality = await retrieval.quality([*found.tuning, *found.held_out], found)

    assert quality.questions >= 80
    # Measured: 0.853 and 0.757; by vectors alone 0.838 and 0.720.
    assert quality.recall_at_5 >= 0.845
    assert quality.reciprocal_rank >= 0.74
    assert quality.answers_relevant >= 0.9
    assert quality.noise_relevant <= 0.2
