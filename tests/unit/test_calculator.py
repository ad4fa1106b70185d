"""The calculator: values to the last digit, and an answer to any text."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.tools.calculator import Calculator
from services.tools.calculator.numbers import CalculationError
from services.tools.calculator.tool import calculate
from services.tools.definition import ToolOutcome
from tests.fixtures.tool_executions import an_execution

bounded = settings(database=None, deadline=None, max_examples=100)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0.1 + 0.2", "0.3"),
        ("1/3", "0.3333333333333333333333333333"),
        ("2/4", "0.5"),
        ("6/3", "2"),
        ("1.50 * 2", "3"),
        ("7.10", "7.1"),
        ("-2**2", "-4"),
        ("2**3**2", "512"),
        ("2^10", "1024"),
        ("2**-3", "0.125"),
        ("2**0.5", "1.414213562373095048801688724"),
        ("8^(1/3)", "2"),
        ("0**0", "1"),
        ("0.0**0", "1"),
        ("(-1)**(10**500)", "1"),
        ("(-1)**(10**500 + 1)", "-1"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("-7.5 // 2", "-4"),
        ("-7.5 % 2", "0.5"),
        ("0.3 % 0.1", "0"),
        ("+5 - -5", "10"),
        ("-0.0", "0"),
        (" 1\n+\t2 ", "3"),
        ("1_000 + 1e3", "2000"),
        (".5 + 5.", "5.5"),
        ("2 \N{MULTIPLICATION SIGN} 3 \N{DIVISION SIGN} 4 \N{MINUS SIGN} 1", "0.5"),
        ("1,000.5 + 1,234,567", "1235567.5"),
        ("PI", "3.141592653589793238462643383"),
    ],
)
def test_arithmetic_is_that_of_decimals(expression: str, value: str) -> None:
    assert value == calculate(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2**200", str(2**200)),
        ("factorial(100)", str(math.factorial(100))),
        ("2**100 * 1.5", "1901475900342344102245054808064"),
        ("123456789012345678.123456789012 + 1", "123456789012345679.123456789012"),
        ("10**999", "1" + "0" * 999),
    ],
)
def test_exact_results_are_printed_in_full(expression: str, value: str) -> None:
    assert value == calculate(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1e-20", "0.00000000000000000001"),
        ("1e-21", "1e-21"),
        ("1e49", "1" + "0" * 49),
        ("1e50", "1e+50"),
        ("1e40 / 3", "3.333333333333333333333333333e+39"),
        ("1e27 / 3", "333333333333333333333333333.3"),
    ],
)
def test_an_exponent_is_printed_only_far_from_one(expression: str, value: str) -> None:
    assert value == calculate(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("sqrt(2)**2", "2"),
        ("sqrt(2)**2 - 2", "0"),
        ("floor(1/3*3)", "1"),
        ("1/3*3 // 1", "1"),
        ("floor(log2(8))", "3"),
        ("sin(pi)", "0"),
        ("cos(pi/2)", "0"),
        ("cos(10**6 * pi)", "1"),
        ("tan(pi/4)", "1"),
        ("4*atan(1) - pi", "0"),
        ("sin(radians(30))", "0.5"),
        ("degrees(acos(0.5))", "60"),
    ],
)
def test_rounding_noise_does_not_reach_the_result(expression: str, value: str) -> None:
    assert value == calculate(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("sqrt(16)", "4"),
        ("sqrt(10**100)", "1" + "0" * 50),
        ("sqrt(0.25)", "0.5"),
        ("cbrt(-27)", "-3"),
        ("cbrt(0)", "0"),
        ("abs(-3.5)", "3.5"),
        ("round(2.5)", "3"),
        ("round(-2.675, 2)", "-2.68"),
        ("round(1234.5, -2)", "1200"),
        ("round(7, 2)", "7"),
        ("round(2/3, 4)", "0.6667"),
        ("floor(-2.1)", "-3"),
        ("ceil(2.1)", "3"),
        ("trunc(-2.7)", "-2"),
        ("floor(1e100)", "1e+100"),
        ("min(3, 1.5, 2)", "1.5"),
        ("max(100,200)", "200"),
        ("max(1,234, 5)", "234"),
        ("sum(0.1, 0.2, 3)", "3.3"),
        ("mean(1, 2, 4.5)", "2.5"),
        ("mod(-7, 3)", "2"),
        ("hypot(3, 4)", "5"),
        ("exp(0)", "1"),
        ("log(8, 2)", "3"),
        ("log10(1000)", "3"),
        ("gcd(12, 18, 27.0)", "3"),
        ("lcm(4, 6)", "12"),
        ("comb(5, 2)", "10"),
        ("comb(2, 5)", "0"),
        ("comb(5, 5)", "1"),
        ("perm(5, 2)", "20"),
        ("perm(2, 5)", "0"),
        ("factorial(0)", "1"),
        ("tau / pi", "2"),
    ],
)
def test_functions_have_their_usual_values(expression: str, value: str) -> None:
    assert value == calculate(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("5!", "120"),
        ("0!", "1"),
        ("5 !", "120"),
        ("-5!", "-120"),
        ("2**3!", "64"),
        ("3!**2", "36"),
        ("5!/(3! * 2!)", "10"),
        ("(2 + 3)!", "120"),
        ("max(2, 3)!", "6"),
        ("max(3!, 2)", "6"),
        ("((2)! + 1)!", "6"),
        ("10! % 7", "0"),
        ("10% of 5!", "12"),
        ("10% of (2 + 3)!", "12"),
        ("100!", str(math.factorial(100))),
    ],
)
def test_an_exclamation_mark_is_a_factorial(expression: str, value: str) -> None:
    assert value == calculate(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("e", "2.718281828459045235360287471"),
        ("ln(2)", "0.6931471805599453094172321215"),
        ("log2(10)", "3.321928094887362347870319429"),
        ("sin(1)", "0.8414709848078965066525023216"),
        ("cos(1)", "0.5403023058681397174009366074"),
        ("tan(1)", "1.557407724654902230506974807"),
        ("sin(10**22)", "-0.8522008497671888017727058938"),
        ("asin(0.5)", "0.5235987755982988730771072305"),
        ("acos(-1)", "3.141592653589793238462643383"),
        ("atan(0.5)", "0.4636476090008061162142562315"),
        ("atan2(-1, -1)", "-2.356194490192344928846982537"),
        ("atan2(1, -1)", "2.356194490192344928846982537"),
        ("atan2(-1, 0)", "-1.570796326794896619231321692"),
        ("atan2(0, 0)", "0"),
        ("radians(180)", "3.141592653589793238462643383"),
    ],
)
def test_transcendental_functions_have_28_correct_digits(expression: str, value: str) -> None:
    assert value == calculate(expression)


@pytest.mark.parametrize(
    ("name", "reference", "low", "high"),
    [
        ("sin", math.sin, -1000.0, 1000.0),
        ("cos", math.cos, -1000.0, 1000.0),
        ("atan", math.atan, -1000.0, 1000.0),
        ("asin", math.asin, -1.0, 1.0),
        ("acos", math.acos, -1.0, 1.0),
        ("cbrt", math.cbrt, -1000.0, 1000.0),
    ],
)
@bounded
@given(data=st.data())
def test_functions_agree_with_floating_point(
    *,
    name: str,
    reference: Callable[[float], float],
    low: float,
    high: float,
    data: st.DataObject,
) -> None:
    value = data.draw(st.floats(low, high).map(lambda value: round(value, 6)))
    assert math.isclose(
        reference(value), float(calculate(f"{name}({value!r})")), rel_tol=1e-9, abs_tol=1e-12
    )


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("15% of 80", "12"),
        ("15% of (80 + 20)", "15"),
        ("15% of (1,000)", "150"),
        ("100 - 15% of 80", "88"),
        ("80 * 15%", "12"),
        ("5%", "0.05"),
        ("-5%", "-0.05"),
        ("max(5%, 1%)", "0.05"),
        ("17 % 5", "2"),
        ("17 % (5)", "2"),
    ],
)
def test_percentages_are_distinguished_from_remainders(expression: str, value: str) -> None:
    assert value == calculate(expression)


integer_expressions = st.recursive(
    st.integers(-999, 999).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    ),
    max_leaves=20,
)


@bounded
@given(integer_expressions)
def test_integer_arithmetic_equals_that_of_python(expression: str) -> None:
    assert str(eval(expression, {"__builtins__": {}})) == calculate(expression)


values = st.sampled_from(["0", "1", "2.5", "9", "1e9", "pi"])


signs = st.sampled_from(["(", ")", ",", "+", "-", "*", "/", "//", "%", "**", "^", "!", "of"])


calls = st.sampled_from(["sqrt(", "ln(", "round(", "comb(", "factorial(", "atan2("])


words = values | signs | calls


@bounded
@given(st.lists(words, max_size=30).map(" ".join))
def test_any_sequence_of_words_is_answered_or_refused(expression: str) -> None:
    try:
        answer = calculate(expression)
    except CalculationError as error:
        answer = str(error)
    assert 0 < len(answer) <= 1100


@bounded
@given(st.text())
def test_any_text_is_answered_or_refused(text: str) -> None:
    try:
        answer = calculate(text)
    except CalculationError as error:
        answer = str(error)
    assert 0 < len(answer) <= 1100


async def test_the_tool_answers_with_the_value_alone() -> None:
    outcome = await Calculator().run({"expression": "0.1 + 0.2"}, an_execution())
    assert outcome == ToolOutcome(output="0.3")


async def test_the_tool_answers_a_bad_expression_with_a_correctable_error() -> None:
    outcome = await Calculator().run({"expression": "1/0"}, an_execution())
    assert outcome == ToolOutcome(output="Division by zero is undefined.", is_error=True)
