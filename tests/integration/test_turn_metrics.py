"""What turns count: once, behind the commit, by labels that nobody can invent."""

from collections.abc import Callable
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from schema.turns import FinishTurnInput, RunToolInput, TurnReference, TurnStatus
from schema.usage import TokenUsage
from services import metrics
from services.events.writer import OvertakenError
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import limit_user
from tests.fixtures.event_stream import turn_id_of
from tests.fixtures.prometheus import promtool
from tests.fixtures.stack import Stack
from tests.integration.test_approvals import Asked, asking, decide

__all__ = ["asking"]

MODEL = "claude-haiku-5-5"


class Counts:
    """What was counted since this was made."""

    def __init__(self) -> None:
        self._before = self._samples()

    def of(self, name: str, **labels: str) -> float:
        """Return by how much a sample has grown."""
        key = (name, tuple(sorted(labels.items())))
        return self._samples().get(key, 0) - self._before.get(key, 0)

    def grown(self, prefix: str) -> dict[tuple[str, ...], float]:
        """Return the samples of a name that have grown, by the values of their labels."""
        after = self._samples()
        return {
            tuple(value for _, value in labels): value - self._before.get((name, labels), 0)
            for (name, labels), value in after.items()
            if name == prefix and value != self._before.get((name, labels), 0)
        }

    @staticmethod
    def _samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in REGISTRY.collect()
            for sample in family.samples
        }


async def reference_of(user: ApiUser, turn_id: str) -> TurnReference:
    turn = await user.turn(turn_id)
    return TurnReference(
        turn_id=UUID(turn_id),
        chat_id=UUID(turn["chatId"]),
        user_id=UUID(user.id),
        model=turn["model"],
    )


async def test_a_turn_is_counted_with_its_tokens_its_cost_and_its_times(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    usage = ScriptedUsage(cache_read_input_tokens=1_000, cache_creation_input_tokens=200)
    stack.model.add(Script(match=question, text="Hello.", usage=usage))
    counts = Counts()

    events = await user.events_of(await user.create_chat(), question)

    turn = await user.turn(turn_id_of(events))
    assert counts.of("everturn_turns_total", status="completed", model=MODEL, error="none") == 1
    assert counts.of("everturn_turn_duration_seconds_count", status="completed") == 1
    assert counts.of("everturn_turn_wait_seconds_count") == 1
    assert counts.of("everturn_step_duration_seconds_count", model=MODEL, result="completed") == 1
    assert counts.of("everturn_time_to_first_token_seconds_count", model=MODEL) == 1
    assert counts.grown("everturn_tokens_total") == {
        ("input", MODEL, "answer"): turn["usage"]["inputTokens"],
        ("output", MODEL, "answer"): turn["usage"]["outputTokens"],
        ("cache_read", MODEL, "answer"): 1_000,
        ("cache_write", MODEL, "answer"): 200,
    }
    cost = counts.of("everturn_cost_usd_total", model=MODEL, purpose="answer")
    assert cost == pytest.approx(float(turn["costUsd"]))
    price = stack.foundation.pricing.cost
    saved = price(MODEL, TokenUsage(input_tokens=1_000)) - price(
        MODEL, TokenUsage(cache_read_tokens=1_000)
    )
    assert counts.of("everturn_cache_savings_usd_total", model=MODEL) == pytest.approx(float(saved))


async def test_activities_that_are_repeated_count_nothing(user: ApiUser, stack: Stack) -> None:
    question = unique()
    call = ToolCall(id="sum", name="calculator", input={"expression": "6 * 7"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="42."))
    events = await user.events_of(await user.create_chat(), question)
    turn = await reference_of(user, turn_id_of(events))
    counts = Counts()

    again = RunToolInput(turn=turn, step=1, tool_call_id="sum", name="calculator")
    with pytest.raises(OvertakenError):
        await stack.activities.tools._tool_calls.run(again)
    for ending in (
        FinishTurnInput(turn=turn, status=TurnStatus.COMPLETED),
        FinishTurnInput(turn=turn, status=TurnStatus.FAILED, bare=True),
    ):
        finish = (
            stack.foundation.ending.finish_bare if ending.bare else stack.foundation.ending.finish
        )
        await finish(ending)

    assert counts.grown("everturn_turns_total") == {}
    assert counts.grown("everturn_tool_calls_total") == {}
    assert counts.grown("everturn_cost_usd_total") == {}


async def test_a_failed_turn_is_counted_by_its_error_and_the_models_reason(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, status=401))
    counts = Counts()

    await user.events_of(await user.create_chat(), question)

    assert counts.grown("everturn_turns_total") == {("MODEL_REJECTED", MODEL, "failed"): 1}
    assert counts.grown("everturn_model_failures_total") == {(MODEL, "credentials"): 1}
    assert counts.grown("everturn_step_duration_seconds_count") == {(MODEL, "failed"): 1}


async def test_an_attempt_that_is_repeated_is_counted_with_what_it_cost(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("Wrong ", "start "), break_after=1))
    stack.model.add(Script(match=question, text="Done."))
    counts = Counts()

    events = await user.events_of(await user.create_chat(), question)

    assert counts.grown("everturn_step_duration_seconds_count") == {
        (MODEL, "failed"): 1,
        (MODEL, "completed"): 1,
    }
    assert counts.grown("everturn_model_failures_total") == {(MODEL, "broken_stream"): 1}
    turn = await user.turn(turn_id_of(events))
    cost = counts.of("everturn_cost_usd_total", model=MODEL, purpose="answer")
    assert cost == pytest.approx(float(turn["costUsd"]))


@pytest.mark.parametrize(
    ("call", "counted"),
    [
        (
            ToolCall(id="sum", name="calculator", input={"expression": "6 * 7"}),
            ("completed", "calculator"),
        ),
        (
            ToolCall(id="sum", name="calculator", input={"expression": "6 *"}),
            ("failed", "calculator"),
        ),
        (ToolCall(id="forged", name="forged_by_a_model"), ("failed", "unknown")),
    ],
)
async def test_tool_calls_are_counted_by_result_but_not_by_names_that_a_model_invents(
    user: ApiUser, stack: Stack, call: ToolCall, counted: tuple[str, str]
) -> None:
    question = unique()
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="I see."))
    counts = Counts()

    await user.events_of(await user.create_chat(), question)

    assert counts.grown("everturn_tool_calls_total") == {counted: 1}
    assert counts.of("everturn_tool_call_duration_seconds_count", tool=counted[1]) == 1
    assert b"forged_by_a_model" not in generate_latest(REGISTRY)


async def test_a_denied_call_is_counted_as_denied(
    user: ApiUser, stack: Stack, asking: None
) -> None:
    counts = Counts()
    async with Asked(stack, user) as asked:
        unfinished = await stack.activities.sweep.unfinished_turns()
        await decide(user, asked.turn_id, decision="deny")
        await asked.stream.all()

    assert unfinished.approvals >= 1
    assert unfinished.awaiting_approval >= 1
    assert counts.grown("everturn_tool_calls_total") == {("denied", "calculator"): 1}


async def test_a_stopped_turn_is_counted_as_cancelled(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Never.", hold=question))
    counts = Counts()
    async with user.stream(await user.create_chat(), question) as stream:
        await stack.model.wait_for_request(match=question, timeout_s=60)
        await user.cancel(stream.turn_id)
        await stream.all()
    stack.model.release(question)

    assert counts.grown("everturn_turns_total") == {("none", MODEL, "cancelled"): 1}
    assert counts.grown("everturn_step_duration_seconds_count") == {(MODEL, "cancelled"): 1}


async def test_what_a_budget_refuses_is_counted(user: ApiUser, admin: ApiUser) -> None:
    await limit_user(admin, user, dailyBudgetUsd="0")
    counts = Counts()

    response = await user.post(await user.create_chat(), "Hello?")

    assert response.status_code == 402, response.text
    assert counts.grown("everturn_budget_refusals_total") == {("user", "usd", "day"): 1}


def test_of_too_many_tools_the_last_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_tools", {f"tool-{number}" for number in range(200)})
    counts = Counts()

    metrics.count_invalid_calls([f"tool-{uuid4()}", "tool-7"])

    assert counts.grown("everturn_tool_calls_total") == {
        ("invalid", "other"): 1,
        ("invalid", "tool-7"): 1,
    }


def test_a_model_that_was_not_expected_is_counted_as_another() -> None:
    counts = Counts()

    metrics.count_charge(
        f"model-{uuid4()}", metrics.Purpose.ANSWER, usage=TokenUsage(), cost_usd=Decimal(1)
    )

    assert counts.grown("everturn_cost_usd_total") == {("other", "answer"): 1}


@pytest.mark.parametrize(
    "exposition", [lambda stack: REGISTRY, lambda stack: stack.app.state.metrics.registry]
)
async def test_promtool_finds_nothing_to_object_to(
    user: ApiUser, stack: Stack, exposition: Callable[[Stack], CollectorRegistry]
) -> None:
    await user.events_of(await user.create_chat(), "Hello.")

    assert promtool("check", "metrics", given=generate_latest(exposition(stack))) == ""
