"""Requests generated from the API description, both valid and invalid."""

import asyncio
from math import ceil
from typing import Final

import pytest
from schemathesis import GenerationMode

from tests.fuzz.accounts import Accounts, Actor, asker_of
from tests.fuzz.findings import GENERATED
from tests.fuzz.operations import Operation
from tests.fuzz.probing import SEED, Probe

_EDGES: Final = 10
"""Of an operation's edges, for each example: every so many of them, others for another seed."""


@pytest.mark.parametrize("actor", list(Actor))
async def test_made_up_requests_are_answered_as_described(
    accounts: Accounts, operation: Operation, actor: Actor, examples: int
) -> None:
    def probe() -> None:
        with Probe(accounts, actor, operation) as probing:
            probing.generate(
                examples if actor.may_ask(operation) else max(1, examples // 5), GENERATED
            )
            probing.findings.check_none()

    await asyncio.to_thread(probe)


async def test_requests_at_the_edges_are_answered_as_described(
    accounts: Accounts, operation: Operation, examples: int
) -> None:
    cases = list(operation.boundary_cases(list(GenerationMode)))
    step = ceil(len(cases) / (examples * _EDGES)) or 1

    def probe() -> None:
        with Probe(accounts, asker_of(operation), operation) as probing:
            for case in cases[SEED % step :: step]:
                probing.send_to_existing(case, GENERATED)
            probing.findings.check_none()

    await asyncio.to_thread(probe)
