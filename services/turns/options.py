"""What a message may ask of its turn: what its model takes and its plan allows.

Anything else is refused when the message is accepted. `call_settings.py` says how it is sent.
"""

import json
from dataclasses import dataclass
from typing import Final, TypeAlias

from schema.plans import Entitlements
from schema.result import Err, Ok, Result
from schema.turn_options import LEAST_THINKING_TOKENS, ThinkingBudget, TurnOptions
from services.auth.accounts import Account
from services.models.abilities import Abilities, Sampling, ThinkingForm, abilities_of
from services.resources import InvalidField
from services.tools.catalogue import ToolCatalogue
from services.tools.input_schemas import problem_of_form
from services.tools.permission import Verdict, audience_of, verdict

THINKING_TOKENS: Final = 8_192
"""How many tokens a model may think with where the message names no number."""

MOST_THINKING_TOKENS: Final = 1_000_000

_LONGEST_SCHEMA: Final = 16 * 1024
LEAST_TOP_P_WITH_THINKING: Final = 0.95


@dataclass(frozen=True, slots=True)
class NotIncluded:
    """The plan doesn't include what the field at `path` asks for."""

    path: str
    message: str


OptionRefusal: TypeAlias = InvalidField | NotIncluded


class OptionRules:
    """Decides what messages may ask of their turns. Errors: DatabaseUnavailableError.

    Units: `longest` is how many tokens an answer may have here, its thinking excluded.
    """

    def __init__(self, tools: ToolCatalogue, *, longest: int) -> None:
        self._tools = tools
        self._longest = longest

    async def problem_of_tools(
        self, options: TurnOptions, account: Account | None
    ) -> OptionRefusal | None:
        """Return why the tools that a message names can't be used, or None."""
        if not options.tools or account is None:
            return None
        snapshot, audience = await self._tools.current_snapshot(), audience_of(account)
        for position, name in enumerate(options.tools):
            path = f"body.tools.{position}"
            decided = verdict(name, snapshot.settings_of(name), audience)
            if snapshot.find(name) is None or decided is Verdict.SWITCHED_OFF:
                return InvalidField(path, "Unknown tool.")
            if decided is Verdict.FORBIDDEN:
                return NotIncluded(path, "This tool isn't available to your role or plan.")
        return None

    async def permit(
        self, asked: TurnOptions, model: str, account: Account
    ) -> Result[TurnOptions, OptionRefusal]:
        """Return the options of a message's turn, or why it can't have them."""
        problem = await self.problem_of_tools(asked, account)
        if problem is not None:
            return Err(problem)
        return self.decide(asked, model, account.entitlements)

    def decide(
        self,
        asked: TurnOptions,
        model: str,
        plan: Entitlements,
        *,
        earlier: TurnOptions | None = None,
    ) -> Result[TurnOptions, OptionRefusal]:
        """Return the options of a turn, or why it can't have what the message asks for.

        What is left of the options of an `earlier` turn is as the plan allows it now.
        """
        problem = problem_of_options(asked, model, longest=self._longest)
        if problem is not None:
            return Err(problem)
        options = asked if earlier is None else asked.with_earlier(earlier)
        permitted = within_plan(options, model, plan)
        if isinstance(permitted, NotIncluded) and "thinking" not in asked.model_fields_set:
            options = options.model_copy(update={"thinking": None})
            permitted = within_plan(options, model, plan)
        return Err(permitted) if isinstance(permitted, NotIncluded) else Ok(permitted)


def problem_of_options(options: TurnOptions, model: str, *, longest: int) -> InvalidField | None:
    """Return why a model doesn't take the options, or None.

    Units: `longest` is how many tokens an answer may have here, its thinking excluded.
    """
    abilities = abilities_of(model)
    return (
        _problem_of_length(options, abilities, longest)
        or _problem_of_thinking(options, abilities)
        or _problem_of_sampling(options, abilities)
        or _problem_of_schema(options)
    )


def _problem_of_length(
    options: TurnOptions, abilities: Abilities, longest: int
) -> InvalidField | None:
    asked, path = options.max_tokens, "body.maxTokens"
    if asked is None:
        return None
    most = min(longest + thinking_tokens(options), abilities.max_output_tokens or asked)
    if asked > most:
        return InvalidField(path, f"Must be at most {most:,} for this answer.")
    if thinks(options) and asked <= LEAST_THINKING_TOKENS:
        return InvalidField(path, f"Must be more than {LEAST_THINKING_TOKENS:,} to think.")
    return None


def _problem_of_thinking(options: TurnOptions, abilities: Abilities) -> InvalidField | None:
    thinking = options.thinking
    if thinking == "off" and abilities.always_thinks:
        return InvalidField("body.thinking", "Thinking can't be turned off for this model.")
    if thinks(options) and abilities.thinking is ThinkingForm.NONE:
        return InvalidField("body.thinking", "This model doesn't support thinking.")
    if not isinstance(thinking, ThinkingBudget):
        return None
    path = "body.thinking.budgetTokens"
    if options.max_tokens is not None and thinking.budget_tokens >= options.max_tokens:
        return InvalidField(path, "Must be less than `maxTokens`.")
    most = (abilities.max_output_tokens or MOST_THINKING_TOKENS) // 2
    if thinking.budget_tokens > most:
        return InvalidField(path, f"Must be at most {most:,} for this model.")
    return None


def _problem_of_sampling(options: TurnOptions, abilities: Abilities) -> InvalidField | None:
    given = {
        "body.temperature": options.temperature not in {None, 1.0},
        "body.topP": options.top_p not in {None, 1.0},
        "body.topK": options.top_k is not None,
    }
    paths = [path for path, is_given in given.items() if is_given]
    if not paths:
        return None
    if abilities.sampling is Sampling.NONE:
        name = paths[0].removeprefix("body.")
        return InvalidField(paths[0], f"This model doesn't support `{name}`.")
    if thinks(options):
        for path in paths:
            if path != "body.topP" or (options.top_p or 1) < LEAST_TOP_P_WITH_THINKING:
                return InvalidField(path, "Can't be combined with thinking.")
    both = options.temperature is not None and options.top_p is not None
    if abilities.sampling is Sampling.ONE and both:
        return InvalidField("body.topP", "This model supports `temperature` or `topP`, not both.")
    return None


def _problem_of_schema(options: TurnOptions) -> InvalidField | None:
    schema = options.response_schema
    if schema is None:
        return None
    path = "body.responseSchema"
    if options.stop_sequences:
        return InvalidField(path, "Can't be combined with `stopSequences`.")
    if len(json.dumps(schema, ensure_ascii=False)) > _LONGEST_SCHEMA:
        return InvalidField(path, f"Must have at most {_LONGEST_SCHEMA:,} characters.")
    problem = problem_of_form(schema)
    return None if problem is None else InvalidField(path, f"The schema {problem}.")


def within_plan(options: TurnOptions, model: str, plan: Entitlements) -> TurnOptions | NotIncluded:
    """Return the options as the plan allows them: `on` thinks with as much as it allows.

    Where it allows no thinking, a model that would think by itself is asked not to, if it can be.
    """
    most, thinking = plan.max_thinking_tokens, options.thinking
    if most is None:
        return options
    if most < LEAST_THINKING_TOKENS:
        if thinks(options):
            return NotIncluded("body.thinking", "Your plan doesn't include thinking.")
        abilities = abilities_of(model)
        is_to_stop = abilities.thinks_by_default and not abilities.always_thinks
        return options.model_copy(update={"thinking": "off"}) if is_to_stop else options
    if isinstance(thinking, ThinkingBudget) and thinking.budget_tokens > most:
        words = f"Your plan allows at most {most:,} tokens of thinking."
        return NotIncluded("body.thinking.budgetTokens", words)
    if thinking == "on" and most < THINKING_TOKENS:
        return options.model_copy(update={"thinking": ThinkingBudget(budget_tokens=most)})
    return options


def thinks(options: TurnOptions) -> bool:
    """Return whether a message asks its model to think."""
    return options.thinking is not None and options.thinking != "off"


def thinking_tokens(options: TurnOptions) -> int:
    """Return how many tokens a message lets its model think with, as far as it says."""
    match options.thinking:
        case ThinkingBudget(budget_tokens=tokens):
            return tokens
        case "on":
            return THINKING_TOKENS
        case _:
            return 0
