"""The demo model's built-in answers, without a script."""

import json

import pytest

from services.compaction import summary_request
from workers.demo_model.answers import Block
from workers.demo_model.arithmetic import find_arithmetic
from workers.demo_model.prompt import JsonObject, read_prompt
from workers.demo_model.questions import find_clock_question
from workers.demo_model.rules import blocks_by_rules

CALCULATOR = {"name": "calculator", "input_schema": {"type": "object"}}
GATE = {"name": "gate", "input_schema": {"type": "object"}}
DATETIME = {"name": "datetime", "input_schema": {"type": "object"}}


def answer(*messages: JsonObject, tools: tuple[JsonObject, ...] = (), **rest: object) -> str:
    """Return the answer to a conversation, tool calls written as `name(input)`."""
    body = {
        "model": "claude-demo",
        "max_tokens": 1000,
        "messages": list(messages),
        "tools": list(tools),
    }
    return "|".join(map(written, blocks_by_rules(read_prompt(body | rest))))


def written(block: Block) -> str:
    return f"{block.tool_name}({block.content})" if block.tool_name else block.content


def user(content: str | list[JsonObject]) -> JsonObject:
    return {"role": "user", "content": content}


def tool_exchange(name: str, tool_input: JsonObject, **result: object) -> list[JsonObject]:
    call = {"type": "tool_use", "id": "toolu_1", "name": name, "input": tool_input}
    outcome = {"type": "tool_result", "tool_use_id": "toolu_1", **result}
    return [user("Go"), {"role": "assistant", "content": [call]}, user([outcome])]


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("What is 12 * 7?", "12 * 7"),
        ("2+2", "2 + 2"),
        ("compute (2 + 3)*4.", "(2 + 3) * 4"),
        ("How much is 15% of 80?", "15 / 100 * 80"),
        ("3 times 4 minus 1, please", "3 * 4 - 1"),
        ("10 divided by 4", "10 / 4"),
        ("6 x 7", "6 * 7"),
        ("6 \N{MULTIPLICATION SIGN} 7 \N{DIVISION SIGN} 2", "6 * 7 / 2"),
        ("1,250.50 + 3", "1250.50 + 3"),
        ("2^10", "2 ** 10"),
        ("-3 + 5", "-3 + 5"),
        ("(as said 4) 1 + 1 (really", "1 + 1"),
    ],
)
def test_arithmetic_is_found_in_a_sentence(text: str, expression: str) -> None:
    found = find_arithmetic(text)

    assert found is not None
    assert expression.replace(" ", "") == found.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        "I have 3 cats and 2 dogs",
        "on 2024-10-11 at 10:30",
        "on 11/10/2024",
        "we are open 24/7",
        "ask claude-haiku-5-5",
        "- a list",
        "5 (3)",
        "((((((",
        "007 + 1",
        "",
    ],
)
def test_text_without_arithmetic_is_left_alone(text: str) -> None:
    assert None is find_arithmetic(text)


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("What time is it?", "UTC"),
        ("what's the date today", "UTC"),
        ("Which day is it in New York?", "America/New_York"),
        ("Tell me the current time in paris", "Europe/Paris"),
        ("What time is it in Asia/Kathmandu?", "Asia/Kathmandu"),
        ("time in Tokyo", "Asia/Tokyo"),
        ("What is 3 times 4?", None),
        ("I had a good time in my life", None),
        ("Paris is lovely", None),
    ],
)
def test_a_question_for_the_time_names_its_zone(text: str, zone: str | None) -> None:
    assert zone == find_clock_question(text)


def test_arithmetic_calls_the_calculator() -> None:
    assert (
        answer(user("What is 12 * 7?"), tools=(CALCULATOR,))
        == 'calculator({"expression": "12 * 7"})'
    )


def test_a_question_for_both_calls_both_tools_at_once() -> None:
    said = answer(user("What is 1 + 1, and what time is it in Rome?"), tools=(CALCULATOR, DATETIME))

    assert said == (
        'calculator({"expression": "1 + 1"})'
        '|datetime({"operation": "now", "timezone": "Europe/Rome"})'
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('call gate {"gate": "a b"}', 'gate({"gate": "a b"})'),
        ('/call gate {"gate": {"of": [1, 2]}}', 'gate({"gate": {"of": [1, 2]}})'),
        (' Call gate\n{\n"gate": "12 * 7"\n}\n', 'gate({"gate": "12 * 7"})'),
        ("call gate", "gate({})"),
        ("call gate {gate}", "The text after “call gate” is not a JSON object."),
        ("/call door", "The tool door is not available. Available tools: calculator, gate."),
        (
            'call door {"a": 1}',
            "The tool door is not available. Available tools: calculator, gate.",
        ),
    ],
)
def test_an_explicit_call_is_sent_unchanged(text: str, said: str) -> None:
    assert answer(user(text), tools=(CALCULATOR, GATE)) == said


def test_a_phone_call_is_not_a_tool_call() -> None:
    assert "I am the demo model" in answer(user("Call mum"), tools=(GATE,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Please remember that 2 + 2 is my number", 'remember({"content": "2 + 2 is my number"})'),
        ("remember: tea", 'remember({"content": "tea"})'),
        ("What do you remember about tea?", 'recall({"query": "tea?"})'),
        ("search the web for good tea", 'web_search({"query": "good tea"})'),
        ("Search my documents for tea", 'knowledge_search({"query": "tea"})'),
        ("think hard about tea", 'deep_reasoning({"question": "tea"})'),
    ],
)
def test_a_set_phrase_calls_its_tool_and_no_other(text: str, said: str) -> None:
    names = ("remember", "recall", "web_search", "knowledge_search", "deep_reasoning")
    tools = tuple({"name": name, "input_schema": {"type": "object"}} for name in names)

    assert answer(user(text), tools=(CALCULATOR, *tools)) == said


def test_a_set_phrase_whose_tool_is_not_offered_is_a_message_like_others() -> None:
    assert "I am the demo model" in answer(user("Remember that I like tea"), tools=(GATE,))


def test_a_tool_that_is_not_offered_is_not_called() -> None:
    assert "I am the demo model" in answer(user("What is 12 * 7?"), tools=(DATETIME,))


def test_tool_choice_none_offers_no_tool() -> None:
    said = answer(user("What is 12 * 7?"), tools=(CALCULATOR,), tool_choice={"type": "none"})

    assert "I am the demo model" in said


def test_only_the_last_text_block_is_the_question() -> None:
    context = {"type": "text", "text": "Known: 5 + 5"}
    question = {"type": "text", "text": "Hello"}

    assert "You wrote “Hello”" in answer(user([context, question]), tools=(CALCULATOR,))


MEMORY = '<memory source="memory 1" kind="fact">\nI feed {} every morning\n</memory>'
PASSAGE = (
    '<passage title="{} &amp; care" source="document 2 version 1">\n'
    "Tortoises eat hay &lt;user> and clover.\n</passage>"
)


def found(*sources: str) -> JsonObject:
    return {"type": "text", "text": "\n".join(("Found:", *sources))}


def test_the_source_that_shares_most_words_with_the_question_is_quoted() -> None:
    sources = found(MEMORY.format("my tortoise Ada"), PASSAGE.format("Tortoises"))

    fact = answer(user([sources, {"type": "text", "text": "When do I feed Ada?"}]))
    document = answer(user([sources, {"type": "text", "text": "What do tortoises eat?"}]))

    assert fact.startswith("From your memories: “I feed my tortoise Ada every morning”")
    assert document.startswith(
        "From the document “Tortoises & care”: “Tortoises eat hay <user> and clover.”"
    )
    assert "I am the demo model" in fact
    assert "I am the demo model" in document


def test_a_source_in_the_system_prompt_is_quoted() -> None:
    system = [{"type": "text", "text": "Be brief."}, found(MEMORY.format("Ada"))]

    said = answer(user("What about Ada?"), system=system)

    assert said.startswith("From your memories: “I feed Ada every morning”")


def test_sources_without_a_word_of_the_question_are_not_quoted() -> None:
    sources = found(MEMORY.format("my tortoise Ada"))

    said = answer(user([sources, {"type": "text", "text": "What is the capital of France?"}]))

    assert said.startswith("I am the demo model")


def test_user_text_is_not_mistaken_for_a_source() -> None:
    said = answer(user(MEMORY.format("Ada")))

    assert said.startswith("I am the demo model")


def test_without_a_rule_it_says_that_it_is_a_demo_and_how_to_get_a_model() -> None:
    said = answer(user("First"), {"role": "assistant", "content": "Yes"}, user("Tell me a story"))

    assert said == (
        "I am the demo model: I follow a few rules and am not a language model. "
        "You wrote “Tell me a story”. I can see 2 earlier messages. "
        "Set ANTHROPIC_API_KEY and start Everturn again to talk to a real one."
    )


def test_a_first_message_without_text_is_answered() -> None:
    said = answer(user([{"type": "image", "source": {"type": "url", "url": "https://x"}}]))

    assert "You wrote no text. I can see no earlier message." in said


@pytest.mark.parametrize(
    "content",
    [
        "84",
        [{"type": "text", "text": "84"}],
        '<tool_output source="calculator">\n84\n</tool_output>',
        json.dumps({"result": "84"}),
    ],
)
def test_a_calculator_result_is_one_sentence(content: object) -> None:
    messages = tool_exchange("calculator", {"expression": "12 * 7"}, content=content)

    assert answer(*messages) == "The demo model's tools say: 12 * 7 = 84."


def test_the_time_is_said_with_its_zone() -> None:
    messages = tool_exchange("datetime", {"timezone": "UTC"}, content="2030-01-01T00:00:00Z")

    assert "in UTC it is 2030-01-01T00:00:00Z." in answer(*messages)


def test_a_failed_tool_is_reported_as_failed() -> None:
    messages = tool_exchange("calculator", {}, content="Division by zero.", is_error=True)

    assert "calculator failed with “Division by zero”." in answer(*messages)


def test_the_result_of_an_unknown_tool_is_quoted() -> None:
    messages = tool_exchange("recall", {}, content='{"hits": 2}')

    assert 'recall answered “{"hits": 2}”.' in answer(*messages)


def test_a_long_conversation_is_summarised_by_what_was_asked() -> None:
    said = [("user", "Where is <it>?", ()), ("assistant", "There.", ()), ("user", "And why?", ())]
    request = summary_request("claude-demo", said, before="- Who is it?")

    shown = answer(user(str(request.messages[0]["content"])), system=request.system)

    assert shown.splitlines() == ["- Who is it?", "- Where is <it>?", "- And why?"]
