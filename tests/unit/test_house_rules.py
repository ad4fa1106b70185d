"""What each rule of the house catches, and what it leaves alone."""

import pytest

from tests.house_rules import ROOT, RULES, findings_in, source_file, source_files

HOME = "/home" + "/ada/everturn"
REGISTRY = "pypi" + ".org"


def broken(path: str, text: str) -> list[str]:
    """Return the names of the rules that a file breaks."""
    return [finding.split(": ")[1] for finding in findings_in([source_file(path, text)])]


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        (
            "services/chats.py",
            '"""Owns it."""\nasync def f(session):\n    await session.commit()\n',
            "transactions-begin-in-one-place",
        ),
        (
            "activities/x.py",
            '"""Owns it."""\nQUERY = text("SELECT set_config(\'a\', :a, true)")\n',
            "transactions-begin-in-one-place",
        ),
        (
            "activities/x.py",
            '"""Owns it."""\nQUERY = "SET LOCAL everturn.user_id = \'1\'"\n',
            "transactions-begin-in-one-place",
        ),
        ("api/x.py", '"""Owns it."""\ndef f():\n    print(1)\n', "nothing-prints"),
        (
            "services/x.py",
            '"""Owns it."""\nredis = Redis.from_url("redis://")\n',
            "clients-belong-to-processes",
        ),
        (
            "services/x.py",
            '"""Owns it."""\nengine = sqlalchemy.ext.asyncio.create_async_engine("x")\n',
            "clients-belong-to-processes",
        ),
        (
            "services/x.py",
            '"""Owns it."""\nclass C:\n    model = anthropic.AsyncAnthropic()\n',
            "clients-belong-to-processes",
        ),
        (
            "services/x.py",
            '"""Owns it."""\nif True:\n    settings = Settings()\n',
            "clients-belong-to-processes",
        ),
        ("workflows/x.py", '"""Owns it."""\nimport httpx\n', "workflows-can-be-replayed"),
        (
            "workflows/x.py",
            '"""Owns it."""\nfrom schema.turns import Turn\n',
            "workflows-can-be-replayed",
        ),
        (
            "workflows/x.py",
            '"""Owns it."""\ndef f():\n    datetime.now()\n',
            "workflows-can-be-replayed",
        ),
        (
            "workflows/x.py",
            '"""Owns it."""\ndef f():\n    return uuid4()\n',
            "workflows-can-be-replayed",
        ),
        (
            "workflows/x.py",
            '"""Owns it."""\nasync def f():\n    await asyncio.sleep(1)\n',
            "workflows-can-be-replayed",
        ),
        ("services/x.py", "A = 1\n", "modules-say-what-they-own"),
        ("docs/x.md", f"See {HOME}.\n", "nothing-names-a-machine"),
        ("requirements/x.txt", f"# from {REGISTRY}\n", "nothing-names-a-machine"),
        ("uv.lock", "", "one-lock-is-enough"),
        ("services/x.py", '"""Owns it."""\n' + "A = 1\n" * 400, "modules-stay-short"),
        ("services/utils.py", '"""Owns it."""\n', "modules-are-named-for-what-they-own"),
        ("tests/helpers/x.py", "", "modules-are-named-for-what-they-own"),
        ("tests/unit/test_x.py", "def test_it():\n    f()\n", "tests-assert-something"),
        (
            "tests/unit/test_x.py",
            "class TestIt:\n    async def test_it(self):\n        await f()\n",
            "tests-assert-something",
        ),
    ],
)
def test_a_rule_catches(path: str, text: str, rule: str) -> None:
    assert broken(path, text) == [rule]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("services/database/store.py", '"""Owns it."""\nasync def f(s):\n    await s.commit()\n'),
        ("tests/unit/store.py", "async def f(s):\n    await s.commit()\n"),
        ("workers/terminal_chat/x.py", '"""Owns it."""\nprint(1)\n'),
        ("api/x.py", '"""Owns it."""\nconsole.print(1)\n'),
        ("workers/x.py", '"""Owns it."""\ndef f():\n    return Redis.from_url("redis://")\n'),
        (
            "workflows/x.py",
            """'Owns it.'
import asyncio
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from schema.turns import Turn

def f():
    return workflow.now(), workflow.uuid4(), asyncio.gather()
""",
        ),
        ("docs/x.md", "`GET https://example.com/home/page` and bin/work/it\n"),
        ("services/x.py", '"""Owns it."""\n' + "A = 1\n" * 399),
        ("tests/load/long.py", "A = 1\n" * 500),
        ("tests/unit/test_x.py", "def test_it():\n    assert f()\n"),
        (
            "tests/unit/test_x.py",
            "def test_it():\n    with pytest.raises(ValueError):\n        f()\n",
        ),
        ("tests/unit/test_x.py", "def test_it():\n    assert_equal(f(), 1)\n"),
        ("tests/unit/test_x.py", "async def test_it():\n    await turn.expect_done()\n"),
        ("tests/unit/test_x.py", "def test_it():\n    wait_gone(1)\n"),
        ("tests/unit/test_x.py", "async def test_it():\n    await stream.until_done()\n"),
        ("tests/unit/test_x.py", "@given(integers())\ndef test_it(number):\n    f(number)\n"),
        ("README.md", "print(1)\n"),
    ],
)
def test_the_rules_leave_alone(path: str, text: str) -> None:
    assert broken(path, text) == []


def test_every_rule_has_a_name_of_its_own_and_tells_its_bug() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.bug.endswith(".") for rule in RULES)


def test_the_repository_is_read_without_what_is_made_from_it() -> None:
    paths = {str(file.path) for file in source_files(ROOT)}

    assert "tests/house_rules.py" in paths
    assert not any(path.startswith((".git/", ".venv/")) for path in paths)
