"""House rules: what no off-the-shelf linter checks. Each rule names the bug it prevents.

Run by `make house-rules`. A rule looks at one file at a time; imports between packages are checked
by import-linter.
"""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent

_GENERATED: Final = {
    ".everturn",
    ".git",
    ".hypothesis",
    ".import_linter_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".venv",
    "__pycache__",
    "dist",
}
_PRIVATE: Final = {".env", ".coverage"}


class Finding(NamedTuple):
    """A line that breaks a rule."""

    line: int
    what: str


class SourceFile(NamedTuple):
    """A file of the repository; `tree` is empty unless it is Python."""

    path: PurePosixPath
    text: str
    tree: ast.Module

    @property
    def is_test(self) -> bool:
        """Whether it belongs to the tests or their tools."""
        return self.path.parts[0] == "tests"

    @property
    def is_python(self) -> bool:
        """Whether it is a Python module."""
        return self.path.suffix == ".py"


class Rule(NamedTuple):
    """A rule and the bug it prevents."""

    name: str
    bug: str
    check: Callable[[SourceFile], Iterator[Finding]]


_SETS: Final = re.compile(r"\bset_config\(|\bSET\s+(LOCAL\s+)?everturn\.", re.IGNORECASE)


def transactions_begin_in_one_place(file: SourceFile) -> Iterator[Finding]:
    """Only services/database commits a transaction or binds its actor."""
    if file.is_test or file.path.is_relative_to("services/database"):
        return
    # The settings of a function in the database end with its call.
    defines_functions = file.path.is_relative_to("schema/migrations")
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and dotted_name(node.func).endswith(".commit"):
            yield Finding(node.lineno, "commit()")
        if defines_functions or not isinstance(node, ast.Constant):
            continue
        if _SETS.search(str(node.value)):
            yield Finding(node.lineno, "a transaction setting")


_CLIENTS: Final = {
    "Anthropic",
    "AsyncAnthropic",
    "AsyncClient",
    "Client.connect",
    "Database",
    "Redis",
    "Redis.from_url",
    "Settings",
    "create_async_engine",
    "create_engine",
    "httpx.Client",
    "redis.from_url",
}


def clients_belong_to_processes(file: SourceFile) -> Iterator[Finding]:
    """No connection, client or settings object is created when a module is imported."""
    if file.is_test:
        return
    for node in _run_at_import(file.tree):
        if isinstance(node, ast.Call):
            name = dotted_name(node.func)
            if {name, *_endings(name)} & _CLIENTS:
                yield Finding(node.lineno, f"{name}() at import")


# Modules that behave the same in every replay of a workflow.
_REPLAYABLE: Final = {
    "abc",
    "asyncio",
    "collections",
    "contextlib",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "functools",
    "itertools",
    "math",
    "operator",
    "re",
    "temporalio",
    "typing",
    "uuid",
}
_UNREPLAYABLE_CALLS: Final = re.compile(
    r"""(time\.\w+ | (datetime|date)\.(now|utcnow|today) | random\.\w+ | secrets\.\w+
    | (uuid\.)?uuid(1|4|7) | new_id | os\.\w+ | open
    | asyncio\.(sleep|wait|as_completed|to_thread|open_connection|create_subprocess_\w+)
    | .*\.run_in_executor)""",
    re.VERBOSE,
)


def workflows_can_be_replayed(file: SourceFile) -> Iterator[Finding]:
    """Workflows import and call nothing that could behave differently in a replay.

    Everturn's own modules are passed through. Instead of `asyncio.sleep`, `wait` and
    `as_completed`, use those of `temporalio.workflow`, which are deterministic and visible in
    Temporal's UI.
    """
    if not file.path.is_relative_to("workflows"):
        return
    passed = {
        id(inner)
        for node in ast.walk(file.tree)
        if isinstance(node, ast.With) and "imports_passed_through" in ast.unparse(node.items[0])
        for inner in ast.walk(node)
    }
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in passed:
            for module in _imported(node):
                if module.partition(".")[0] not in _REPLAYABLE:
                    yield Finding(
                        node.lineno, f"import of {module} outside imports_passed_through()"
                    )
        if isinstance(node, ast.Call):
            name = dotted_name(node.func)
            if _UNREPLAYABLE_CALLS.fullmatch(name):
                yield Finding(node.lineno, f"{name}()")


_HOMES: Final = r"/(?:home|Users|root)/\w"
_REGISTRIES: Final = r"py(?:pi|thonhosted)[.]org|--(?:extra-)?index[-]url|registry[.]npm"
# Folders that many machines have: what lies in them is named with one more segment.
_SHARED: Final = {"home", "mnt", "opt", "private", "srv", "tmp", "Users", "usr", "var"}


def folder_of_this_machine(path: Path) -> str:
    """Return the shortest prefix of an absolute path that other machines don't have."""
    parts = path.parts[1:]
    return "/" + "/".join(parts[: 2 if parts[0] in _SHARED else 1])


_MACHINE: Final = re.compile(
    "|".join(
        [
            rf"(?<![\w.~-])(?:{_HOMES}|{re.escape(folder_of_this_machine(ROOT))}/\w)",
            _REGISTRIES,
        ]
    )
)


def nothing_names_a_machine(file: SourceFile) -> Iterator[Finding]:
    """No file names a home, the folder that this checkout is in, or a package registry."""
    for number, line in enumerate(file.text.splitlines(), start=1):
        found = _MACHINE.search(line)
        if found:
            yield Finding(number, found.group().strip())


def one_lock_is_enough(file: SourceFile) -> Iterator[Finding]:
    """Only requirements/ says what is installed."""
    if file.path.name in {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock"}:
        yield Finding(1, "a second lock file")


_LONGEST: Final = 400


def modules_stay_short(file: SourceFile) -> Iterator[Finding]:
    """No module of production code is longer than 400 lines."""
    length = len(file.text.splitlines())
    if file.is_python and not file.is_test and length > _LONGEST:
        yield Finding(_LONGEST, f"{length} lines")


_NAMELESS: Final = {"base", "common", "helpers", "manager", "managers", "misc", "util", "utils"}


def modules_are_named_for_their_content(file: SourceFile) -> Iterator[Finding]:
    """No module or package has a name that could hold anything."""
    if file.is_python:
        for part in (*file.path.parts[:-1], file.path.stem):
            if part in _NAMELESS:
                yield Finding(1, f"a module called {part}")


# A bounded wait fails when the event does not come, so it counts as an assertion.
_ASSERTING: Final = re.compile(
    r"(.*\.)?_?(assert|check|expect|until|wait)_\w+ | pytest\.(raises|warns|fail)", re.VERBOSE
)


def tests_assert_something(file: SourceFile) -> Iterator[Finding]:
    """Every test function asserts something."""
    if not (file.is_test and file.path.name.startswith("test_")):
        return
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("test_") and not _asserts(node):
            yield Finding(node.lineno, f"{node.name} asserts nothing")


RULES: Final = (
    Rule(
        "transactions-begin-in-one-place",
        "A commit elsewhere ends the transaction that the actor is bound to: later statements run "
        "without an actor and find nothing, or a setting leaks to the next user.",
        transactions_begin_in_one_place,
    ),
    Rule(
        "clients-belong-to-processes",
        "A client created at import belongs to whichever event loop comes first, is never closed, "
        "and reads the environment before it can be set.",
        clients_belong_to_processes,
    ),
    Rule(
        "workflows-can-be-replayed",
        "Workers run workflows unsandboxed: a clock, a random number or I/O gives a different "
        "value in a replay, and every running turn stops with a non-determinism error.",
        workflows_can_be_replayed,
    ),
    Rule(
        "nothing-names-a-machine",
        "A path or a package address of one machine works on no other.",
        nothing_names_a_machine,
    ),
    Rule(
        "one-lock-is-enough",
        "Two lock files drift apart, and only one of them is installed.",
        one_lock_is_enough,
    ),
    Rule(
        "modules-stay-short",
        "A module of more than 400 lines holds two ideas, and changing one means reading both.",
        modules_stay_short,
    ),
    Rule(
        "modules-are-named-for-their-content",
        "A catch-all module is never searched, so its content is written a second time.",
        modules_are_named_for_their_content,
    ),
    Rule(
        "tests-assert-something",
        "A test without an assertion passes after its subject stops working.",
        tests_assert_something,
    ),
)


def source_file(path: str, text: str) -> SourceFile:
    """Return a file as rules see it. Errors: SyntaxError for invalid Python."""
    name = PurePosixPath(path)
    return SourceFile(name, text, ast.parse(text if name.suffix == ".py" else ""))


def source_files(root: Path) -> Iterator[SourceFile]:
    """Yield every text file of the repository at `root`."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _GENERATED)
        for name in sorted(set(names) - _PRIVATE):
            path = Path(folder, name)
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue  # an image or a socket
            yield source_file(path.relative_to(root).as_posix(), text)


def findings_in(files: Iterable[SourceFile]) -> Iterator[str]:
    """Yield one line for each violation."""
    for file in files:
        for rule in RULES:
            for finding in rule.check(file):
                yield f"{file.path}:{finding.line}: {rule.name}: {finding.what}. {rule.bug}"


def dotted_name(node: ast.expr) -> str:
    """Return a called name as written, with its attributes, or '' for other expressions."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value)}.{node.attr}"
    return ""


def _endings(name: str) -> Iterator[str]:
    """Yield the shorter endings of a dotted name: for a.b.c, b.c and c."""
    parts = name.split(".")
    for start in range(1, len(parts)):
        yield ".".join(parts[start:])


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _run_at_import(child)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""]


def _asserts(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if any("given" in ast.unparse(decorator) for decorator in test.decorator_list):
        return True
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and _ASSERTING.fullmatch(dotted_name(node.func)))
        for node in ast.walk(test)
    )


def main() -> int:
    """Check the repository and print the violations."""
    found = list(findings_in(source_files(ROOT)))
    print("\n".join(found) if found else f"house rules: all {len(RULES)} kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
