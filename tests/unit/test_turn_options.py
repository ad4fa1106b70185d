"""What messages may ask of their turns, and how models of each kind are asked."""

from typing import Any, Final

import pytest

from schema.plans import Entitlements
from schema.result import Err, Ok
from schema.turn_options import TurnOptions, options_as_sent, options_of
from services.models.abilities import UNKNOWN, Sampling, ThinkingForm, abilities_of
from services.models.failures import Refusable, provider_error
from services.resources import InvalidField
from services.turns.call_settings import (
    CallSettings,
    RefusedOptions,
    call_settings,
    left_out_options,
    without_refused,
)
from services.turns.options import NotIncluded, OptionRules, problem_of_options, within_plan

OLD, MIDDLE, NEW, ALWAYS = (
    "claude-3-haiku-20240307",
    "claude-sonnet-4-5-20250929",
    "claude-haiku-5-5",
    "claude-opus-5-5",
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"zone": {"type": "string"}, "answer": {"type": "integer"}},
    "required": ["zone", "answer"],
}

ALTERNATIVES: dict[str, Any] = {
    "anyOf": [{"type": "null"}, {"$ref": "#/$defs/size"}],
    "$defs": {"size": {"properties": {"Größe in cm": {"type": "number"}}}},
}


def asked(**options: Any) -> TurnOptions:  # noqa: ANN401 -- as a client sends them
    return TurnOptions.model_validate(options, strict=False)


@pytest.mark.parametrize(
    ("model", "thinking", "always", "off", "sampling"),
    [
        (OLD, ThinkingForm.NONE, False, "disabled", Sampling.ALL),
        ("claude-3-7-sonnet-latest", ThinkingForm.BUDGET, False, "disabled", Sampling.ALL),
        ("claude-sonnet-4-20250514", ThinkingForm.BUDGET, False, "disabled", Sampling.ALL),
        ("claude-opus-4-1-20250805", ThinkingForm.BUDGET, False, "disabled", Sampling.ONE),
        (MIDDLE, ThinkingForm.BUDGET, False, "disabled", Sampling.ONE),
        ("us.anthropic.claude-sonnet-4-6", ThinkingForm.ADAPTIVE, False, "disabled", Sampling.ONE),
        ("claude-opus-4-7", ThinkingForm.ADAPTIVE, False, "disabled", Sampling.NONE),
        ("claude-opus-5", ThinkingForm.ADAPTIVE, False, "disabled", Sampling.NONE),
        (NEW, ThinkingForm.ADAPTIVE, False, "disabled", Sampling.NONE),
        ("claude-sonnet-5-5", ThinkingForm.ADAPTIVE, False, "between_tools", Sampling.NONE),
        (ALWAYS, ThinkingForm.ADAPTIVE, True, None, Sampling.NONE),
        ("claude-mythos-preview", ThinkingForm.ADAPTIVE, True, None, Sampling.NONE),
    ],
)
def test_a_models_name_tells_what_it_takes(
    model: str, thinking: ThinkingForm, *, always: bool, off: str | None, sampling: Sampling
) -> None:
    found = abilities_of(model)

    assert (found.thinking, found.always_thinks, found.off) == (thinking, always, off)
    assert found.sampling is sampling


def test_other_models_are_asked_for_anything() -> None:
    assert abilities_of("qwen3-next") == UNKNOWN
    assert problem_of_options(asked(thinking="on"), "qwen3-next", longest=4096) is None
    options = asked(temperature=0.2, topP=0.5, topK=5)
    assert problem_of_options(options, "qwen3-next", longest=4096) is None


@pytest.mark.parametrize(
    ("options", "model", "path"),
    [
        ({"temperature": 0.5}, NEW, "body.temperature"),
        ({"topK": 5}, NEW, "body.topK"),
        ({"temperature": 0.5, "topP": 0.5}, MIDDLE, "body.topP"),
        ({"temperature": 0.5, "thinking": "on"}, MIDDLE, "body.temperature"),
        ({"topP": 0.5, "thinking": "on"}, MIDDLE, "body.topP"),
        ({"thinking": "on"}, OLD, "body.thinking"),
        ({"thinking": {"budgetTokens": 2048}}, OLD, "body.thinking"),
        ({"thinking": "off"}, ALWAYS, "body.thinking"),
        ({"thinking": {"budgetTokens": 90_000}}, NEW, "body.thinking.budgetTokens"),
        (
            {"thinking": {"budgetTokens": 2048}, "maxTokens": 2048},
            NEW,
            "body.thinking.budgetTokens",
        ),
        ({"maxTokens": 4097}, NEW, "body.maxTokens"),
        ({"maxTokens": 1024, "thinking": "on"}, NEW, "body.maxTokens"),
        ({"responseSchema": {"type": "nonsense"}}, NEW, "body.responseSchema"),
        ({"responseSchema": {"$ref": "https://example.com/s"}}, NEW, "body.responseSchema"),
        ({"responseSchema": {"$ref": "#"}}, NEW, "body.responseSchema"),
        ({"responseSchema": {"description": "x" * 17_000}}, NEW, "body.responseSchema"),
        ({"responseSchema": SCHEMA, "stopSequences": ["}"]}, NEW, "body.responseSchema"),
    ],
)
def test_what_a_model_does_not_take_is_refused_with_its_path(
    options: dict[str, Any], model: str, path: str
) -> None:
    problem = problem_of_options(asked(**options), model, longest=4096)

    assert isinstance(problem, InvalidField)
    assert problem.path == path
    assert problem.message.endswith(".")


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({}, NEW),
        ({"temperature": 1.0, "topP": 1}, NEW),
        ({"temperature": 0.5}, MIDDLE),
        ({"topP": 0.95, "thinking": "on"}, MIDDLE),
        ({"thinking": "off"}, OLD),
        ({"thinking": "off", "maxTokens": 10}, NEW),
        ({"thinking": {"budgetTokens": 2048}, "maxTokens": 6_000}, NEW),
        ({"responseSchema": SCHEMA, "thinking": "on", "tools": []}, NEW),
        ({"responseSchema": ALTERNATIVES}, NEW),
    ],
)
def test_what_a_model_takes_is_accepted(options: dict[str, Any], model: str) -> None:
    assert problem_of_options(asked(**options), model, longest=4096) is None


@pytest.mark.parametrize(
    ("thinking", "model", "most", "kept"),
    [
        ("on", NEW, None, "on"),
        ("on", NEW, 20_000, "on"),
        ("on", NEW, 2_000, {"budgetTokens": 2_000}),
        ({"budgetTokens": 2_000}, NEW, 2_000, {"budgetTokens": 2_000}),
        ({"budgetTokens": 2_001}, NEW, 2_000, "body.thinking.budgetTokens"),
        ("on", NEW, 0, "body.thinking"),
        ("off", NEW, 0, "off"),
        (None, NEW, 0, "off"),
        (None, MIDDLE, 0, None),
        (None, ALWAYS, 0, None),
        (None, NEW, 2_000, None),
    ],
)
def test_a_plan_bounds_what_a_model_may_think_with(
    thinking: object, model: str, most: int | None, kept: object
) -> None:
    options = asked() if thinking is None else asked(thinking=thinking)

    permitted = within_plan(options, model, Entitlements(max_thinking_tokens=most))

    if isinstance(permitted, NotIncluded):
        assert permitted.path == kept
    else:
        assert (permitted.stored() or {}).get("thinking") == kept


def test_options_are_kept_as_they_were_sent() -> None:
    sent = {
        "tools": [],
        "thinking": {"budgetTokens": 4096},
        "temperature": 0.5,
        "stopSequences": ["END"],
        # Postgres would sort these.
        "responseSchema": {"type": "object", "properties": {"zz": {"const": None}, "a": {}}},
    }

    stored = asked(**sent).stored()

    assert options_as_sent(stored) == sent
    assert list(options_as_sent(stored)["responseSchema"]["properties"]) == ["zz", "a"]  # type: ignore[index]  # is not None
    assert options_of(stored) == asked(**sent)
    assert options_of({**(stored or {}), "ofAnotherRelease": 1}) == asked(**sent)
    assert asked().stored() is None
    assert options_of(None) == asked()


def test_a_regenerated_answer_keeps_what_is_not_asked_for_otherwise() -> None:
    rules = OptionRules(tools=None, longest=4096)  # type: ignore[arg-type]  # not asked
    earlier = asked(thinking="on", maxTokens=2_000, tools=["calculator"])

    kept = rules.decide(asked(maxTokens=3_000), NEW, Entitlements(), earlier=earlier)
    cleared = rules.decide(asked(thinking=None), NEW, Entitlements(), earlier=earlier)
    of_another_plan = rules.decide(
        asked(), NEW, Entitlements(max_thinking_tokens=0), earlier=earlier
    )
    refused = rules.decide(
        asked(thinking="on"), NEW, Entitlements(max_thinking_tokens=0), earlier=earlier
    )

    assert kept == Ok(asked(thinking="on", maxTokens=3_000, tools=["calculator"]))
    assert isinstance(cleared, Ok)
    assert cleared.value.thinking is None
    assert isinstance(of_another_plan, Ok)
    assert of_another_plan.value.thinking == "off"
    assert isinstance(refused, Err)


def settings(model: str, **options: Any) -> CallSettings:  # noqa: ANN401 -- as a client sends them
    return call_settings(asked(**options), model, longest=4_000)


_SHOWN: Final = {"type": "adaptive", "display": "summarized"}


def _budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


@pytest.mark.parametrize(
    ("model", "thinking", "sent", "more"),
    [
        (NEW, None, None, (None, 4_000)),
        (NEW, "on", _SHOWN, (None, 12_192)),
        (NEW, {"budgetTokens": 2_048}, _SHOWN, ("low", 6_048)),
        (NEW, {"budgetTokens": 9_000}, _SHOWN, ("high", 13_000)),
        (NEW, "off", {"type": "disabled"}, (None, 4_000)),
        ("claude-sonnet-5-5", "off", {"type": "between_tools"}, (None, 4_000)),
        (ALWAYS, "off", None, (None, 4_000)),
        (MIDDLE, "on", _budget(6_096), (None, 12_192)),
        (MIDDLE, {"budgetTokens": 2_048}, _budget(2_048), (None, 6_048)),
        (OLD, "on", None, (None, 4_096)),
    ],
)
def test_thinking_is_asked_for_as_the_model_takes_it(
    model: str, thinking: object, sent: dict[str, Any] | None, more: tuple[str | None, int]
) -> None:
    made = settings(model, thinking=thinking)

    assert made.thinking == sent
    assert (made.effort, made.max_tokens) == more
    assert ("thinking" in made.left_out) == ((model, thinking) in [(ALWAYS, "off"), (OLD, "on")])


def test_a_shorter_answer_thinks_less() -> None:
    made = settings(MIDDLE, thinking={"budgetTokens": 4_000})

    assert made.granted(100_000) is made
    assert made.granted(4_000).thinking == {"type": "enabled", "budget_tokens": 2_000}
    assert made.granted(1_500).thinking is None
    assert (made.granted(1_500).max_tokens, made.granted(1_500).longest) == (1_500, 8_000)


@pytest.mark.parametrize(
    ("model", "options", "sampling", "left_out"),
    [
        (MIDDLE, {"temperature": 0.2}, {"temperature": 0.2}, set()),
        (MIDDLE, {"temperature": 0.2, "topP": 0.5}, {"temperature": 0.2}, {"top_p"}),
        (NEW, {"temperature": 0.2, "topK": 5}, {}, {"temperature", "top_k"}),
        (NEW, {"temperature": 1.0}, {}, set()),
        (MIDDLE, {"temperature": 0.2, "thinking": "on"}, {}, {"temperature"}),
        (MIDDLE, {"topP": 0.97, "thinking": "on"}, {"top_p": 0.97}, set()),
        ("other", {"temperature": 0.2, "topP": 0.5}, {"temperature": 0.2, "top_p": 0.5}, set()),
    ],
)
def test_another_model_goes_without_what_it_does_not_take(
    model: str, options: dict[str, Any], sampling: dict[str, float], left_out: set[str]
) -> None:
    made = settings(model, **options)

    assert (dict(made.sampling), set(made.left_out)) == (sampling, left_out)
    notice = left_out_options(made)
    assert (notice is None) == (not left_out)


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ("`temperature` is deprecated for this model.", Refusable.SAMPLING),
        (
            "`temperature` and `top_p` cannot both be specified for this model.",
            Refusable.SAMPLING,
        ),
        ('"thinking.type.disabled" is not supported for this model.', Refusable.THINKING),
        ("thinking.adaptive.budget_tokens: Extra inputs are not permitted", Refusable.THINKING),
        ("This model does not support the effort parameter.", Refusable.THINKING),
        (
            "The block is bound to a different conversation.",
            Refusable.EARLIER_THINKING,
        ),
        (
            "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found it",
            Refusable.EARLIER_THINKING,
        ),
        ("output_config.format.schema: Schema is too complex.", Refusable.STRUCTURED),
        ("output_format: Extra inputs are not permitted", Refusable.STRUCTURED),
        ("Something else.", None),
    ],
)
def test_a_providers_words_tell_what_it_refuses(message: str, part: Refusable | None) -> None:
    body: dict[str, Any] = {"error": {"type": "invalid_request_error", "message": message}}

    assert provider_error(400, body, {}).refused_option is part
    body["error"] = {"type": "api_error", "message": message}
    assert provider_error(500, body, {}).refused_option is None


def test_what_a_provider_refuses_is_left_out_and_remembered() -> None:
    body = {"error": {"type": "invalid_request_error", "message": "thinking: not supported"}}
    refused, known = provider_error(400, body, {}), RefusedOptions()
    made = settings("other", thinking="on", temperature=0.5)

    less = without_refused(made, refused)

    assert less is not None
    assert (less.thinking, set(less.left_out)) == (None, {"temperature", "thinking"})
    assert without_refused(less, refused) is None
    known.remember("other", less.refused)
    assert call_settings(
        asked(thinking="on"), "other", longest=4_000, refused=known.of("other")
    ).left_out == {"thinking"}
    assert known.of(NEW) == frozenset()


def test_a_schema_may_be_refused_in_any_words() -> None:
    body = {"error": {"type": "invalid_request_error", "message": "bad request"}}
    made = settings(NEW, responseSchema=SCHEMA)

    less = without_refused(made, provider_error(400, body, {}))

    assert made.output is not None
    assert made.instructions is None
    assert less is not None
    assert less.output is None
    assert less.left_out == frozenset()
    assert "JSON schema" in str(less.instructions)
    assert without_refused(less, provider_error(400, body, {})) is None
