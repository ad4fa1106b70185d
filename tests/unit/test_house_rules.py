"""What each house rule catches and what it allows."""

from pathlib import Path

import pytest

from tests.house_rules import (
    ROOT,
    RULES,
    findings_in,
    folder_of_this_machine,
    source_file,
    source_files,
)

HOME = "/home" + "/ada/everturn"
REGISTRY = "pypi" + ".org"


def broken(path: str, text: str) -> list[str]:
    """Return the names of the rules that a file violates."""
    return [finding.split(": ")[1] for finding in findings_in([source_file(path, text)])]


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        (
            "services/chats.py",
            '"""It."""\nasync def f(session):\n    await session.commit()\n',
            "transactions-begin-in-one-place",
        ),
        (
            "activities/x.py",
            '"""It."""\nQUERY = text("SELECT set_config(\'a\', :a, true)")\n',
            "transactions-begin-in-one-place",
        ),
        (
            "activities/x.py",
            '"""It."""\nQUERY = "SET LOCAL everturn.user_id = \'1\'"\n',
            "transactions-begin-in-one-place",
        ),
        (
            "services/x.py",
            '"""It."""\nredis = Redis.from_url("redis://")\n',
            "clients-belong-to-processes",
        ),
        (
            "services/x.py",
            '"""It."""\nengine = sqlalchemy.ext.asyncio.create_async_engine("x")\n',
            "clients-belong-to-processes",
        ),
        (
            "services/x.py",
            '"""It."""\nclass C:\n    model = anthropic.AsyncAnthropic()\n',
            "clients-belong-to-processes",
        ),
        (
            "services/x.py",
            '"""It."""\nif True:\n    settings = Settings()\n',
            "clients-belong-to-processes",
        ),
        ("workflows/x.py", '"""It."""\nimport httpx\n', "workflows-can-be-replayed"),
        (
            "workflows/x.py",
            '"""It."""\nfrom schema.turns import Turn\n',
            "workflows-can-be-replayed",
        ),
        (
            "workflows/x.py",
            '"""It."""\ndef f():\n    datetime.now()\n',
            "workflows-can-be-replayed",
        ),
        (
            "workflows/x.py",
            '"""It."""\ndef f():\n    return uuid4()\n',
            "workflows-can-be-replayed",
        ),
        (
            "workflows/x.py",
            '"""It."""\nasync def f():\n    await asyncio.sleep(1)\n',
            "workflows-can-be-replayed",
        ),
        ("docs/x.md", f"See {HOME}.\n", "nothing-names-a-machine"),
        ("docs/x.md", f"See {ROOT}/x.\n", "nothing-names-a-machine"),
        ("requirements/x.txt", f"# from {REGISTRY}\n", "nothing-names-a-machine"),
        ("uv.lock", "", "one-lock-is-enough"),
        ("services/x.py", '"""It."""\n' + "A = 1\n" * 400, "modules-stay-short"),
        ("services/utils.py", '"""It."""\n', "modules-are-named-for-their-content"),
        ("tests/helpers/x.py", "", "modules-are-named-for-their-content"),
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
        ("services/database/store.py", '"""It."""\nasync def f(s):\n    await s.commit()\n'),
        ("tests/unit/store.py", "async def f(s):\n    await s.commit()\n"),
        ("workers/x.py", '"""It."""\ndef f():\n    return Redis.from_url("redis://")\n'),
        (
            "workflows/x.py",
            """'It.'
import asyncio
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from schema.turns import Turn

def f():
    return workflow.now(), workflow.uuid4(), asyncio.gather()
""",
        ),
        ("docs/x.md", "`GET https://example.com/home/page` and bin/home/it\n"),
        ("services/x.py", '"""It."""\n' + "A = 1\n" * 399),
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
        ("docs/x.md", "/usr/bin/env, /etc/hosts, /api/v1/chats, text/html\n"),
    ],
)
def test_the_rules_allow(path: str, text: str) -> None:
    assert broken(path, text) == []


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/builds/everturn", "/builds"),
        ("/opt/checkouts/everturn", "/opt/checkouts"),
        ("/tmp/clone", "/tmp/clone"),
        ("/everturn", "/everturn"),
    ],
)
def test_a_local_folder_does_not_exist_on_other_machines(path: str, folder: str) -> None:
    assert folder_of_this_machine(Path(path)) == folder


def test_rules_have_unique_names_and_explain_the_bug() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.bug.endswith(".") for rule in RULES)


def test_generated_files_are_not_checked() -> None:
    paths = {str(file.path) for file in source_files(ROOT)}

    assert "tests/house_rules.py" in paths
    assert not any(path.startswith((".git/", ".venv/")) for path in paths)
