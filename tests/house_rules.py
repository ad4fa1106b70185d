"""The rules of this house that no linter knows. Each tells the bug that it keeps out.

Run by `make house-rules`. A rule looks at one file; what is a matter of imports between packages
is import-linter's.
"""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent

_MADE: Final = {
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
    """A file of the repository; `tree` is empty where it is no Python."""

    path: PurePosixPath
    text: str
    tree: ast.Module

    @property
    def is_test(self) -> bool:
        """Whether it is part of the tests or of their tools."""
        return self.path.parts[0] == "tests"

    @property
    def is_python(self) -> bool:
        """Whether it is a Python module."""
        return self.path.suffix == ".py"


class Rule(NamedTuple):
    """A rule, and the bug behind it."""

    name: str
    bug: str
    check: Callable[[SourceFile], Iterator[Finding]]


_SETS: Final = re.compile(r"\bset_config\(|\bSET\s+(LOCAL\s+)?everturn\.", re.IGNORECASE)


def transactions_begin_in_one_place(file: SourceFile) -> Iterator[Finding]:
    """`commit`, and what says in whose name, stand in services/database only."""
    if file.is_test or file.path.is_relative_to("services/database"):
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and dotted_name(node.func).endswith(".commit"):
            yield Finding(node.lineno, "commit()")
        if isinstance(node, ast.Constant) and _SETS.search(str(node.value)):
            yield Finding(node.lineno, "a setting of the transaction")


def nothing_prints(file: SourceFile) -> Iterator[Finding]:
    """`print` stands in the terminal's user interface only."""
    if file.is_test or file.path.is_relative_to("workers/terminal_chat"):
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and dotted_name(node.func) == "print":
            yield Finding(node.lineno, "print()")


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
    """No connection, client or settings object is made while a module is imported."""
    if file.is_test:
        return
    for node in _run_at_import(file.tree):
        if isinstance(node, ast.Call):
            name = dotted_name(node.func)
            if {name, *_endings(name)} & _CLIENTS:
                yield Finding(node.lineno, f"{name}() at import")


# Modules whose use in a workflow is the same in every replay.
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
    """Workflows import nothing at run time that a replay could see change, and call no such thing.

    Ours are passed through; `asyncio.sleep`, `wait` and `as_completed` have forms of Temporal's
    that are named in its UI or ordered: `workflow.sleep`, `wait`, `as_completed`.
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
                    yield Finding(node.lineno, f"import of {module} that is not passed through")
        if isinstance(node, ast.Call):
            name = dotted_name(node.func)
            if _UNREPLAYABLE_CALLS.fullmatch(name):
                yield Finding(node.lineno, f"{name}()")


def modules_say_what_they_own(file: SourceFile) -> Iterator[Finding]:
    """Every module of production code opens with a docstring."""
    if file.is_python and not file.is_test and not ast.get_docstring(file.tree):
        yield Finding(1, "no docstring")


_ADDRESSES: Final = re.compile(
    r"""(?<![\w.~-])/(?:home|Users|root|work|farm|workspace)/\w  # a home or a working folder
    | py(?:pi|thonhosted)[.]org | --(?:extra-)?index[-]url | registry[.]npm""",
    re.VERBOSE,
)


def nothing_names_a_machine(file: SourceFile) -> Iterator[Finding]:
    """No file names a folder of somebody's machine, or where packages are fetched from."""
    for number, line in enumerate(file.text.splitlines(), start=1):
        found = _ADDRESSES.search(line)
        if found:
            yield Finding(number, found.group().strip())


def one_lock_is_enough(file: SourceFile) -> Iterator[Finding]:
    """What is installed is written in requirements/ and nowhere else."""
    if file.path.name in {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock"}:
        yield Finding(1, "a second lock file")


_LONGEST: Final = 400


def modules_stay_short(file: SourceFile) -> Iterator[Finding]:
    """No module of production code is longer than 400 lines."""
    length = len(file.text.splitlines())
    if file.is_python and not file.is_test and length > _LONGEST:
        yield Finding(_LONGEST, f"{length} lines")


_NAMELESS: Final = {"base", "common", "helpers", "manager", "managers", "misc", "util", "utils"}


def modules_are_named_for_what_they_own(file: SourceFile) -> Iterator[Finding]:
    """No module or package is a drawer for what has no place."""
    if file.is_python:
        for part in (*file.path.parts[:-1], file.path.stem):
            if part in _NAMELESS:
                yield Finding(1, f"a module called {part}")


# A bounded wait fails when what it waits for does not come: it asserts, by its name.
_ASSERTING: Final = re.compile(
    r"(.*\.)?_?(assert|check|expect|until|wait)_\w+ | pytest\.(raises|warns|fail)", re.VERBOSE
)


def tests_assert_something(file: SourceFile) -> Iterator[Finding]:
    """Every test function can fail by more than an exception."""
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
        "A commit elsewhere ends the transaction that the actor is bound to: what follows it runs "
        "as nobody, and row-level security shows nothing, or a setting leaks to the next user.",
        transactions_begin_in_one_place,
    ),
    Rule(
        "nothing-prints",
        "What is printed carries no request, turn or workflow id and is found by no log search; "
        "nothing keeps a person's words out of it.",
        nothing_prints,
    ),
    Rule(
        "clients-belong-to-processes",
        "A client that a module makes belongs to whichever event loop comes first, is never "
        "closed, and has read the environment before anyone could set it.",
        clients_belong_to_processes,
    ),
    Rule(
        "workflows-can-be-replayed",
        "Workers run workflows unsandboxed: a clock, a random number or I/O gives another value "
        "in the replay, and every running turn stops with a non-determinism error.",
        workflows_can_be_replayed,
    ),
    Rule(
        "modules-say-what-they-own",
        "Where no module says that it owns a thing, the second one that does is written soon.",
        modules_say_what_they_own,
    ),
    Rule(
        "nothing-names-a-machine",
        "A path or a package address of one machine works there, and nowhere else.",
        nothing_names_a_machine,
    ),
    Rule(
        "one-lock-is-enough",
        "Two lock files come to disagree, and only one of them is what runs.",
        one_lock_is_enough,
    ),
    Rule(
        "modules-stay-short",
        "Past 400 lines a module owns two things, and who changes the one must read the other.",
        modules_stay_short,
    ),
    Rule(
        "modules-are-named-for-what-they-own",
        "What lies in a drawer is written again by whoever does not look into the drawer.",
        modules_are_named_for_what_they_own,
    ),
    Rule(
        "tests-assert-something",
        "A test without an assertion passes when what it is about has stopped working.",
        tests_assert_something,
    ),
)


def source_file(path: str, text: str) -> SourceFile:
    """Return a file as rules see it. Errors: SyntaxError for Python that is none."""
    name = PurePosixPath(path)
    return SourceFile(name, text, ast.parse(text if name.suffix == ".py" else ""))


def source_files(root: Path) -> Iterator[SourceFile]:
    """Yield every text file under `root` that belongs to the repository."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _MADE)
        for name in sorted(set(names) - _PRIVATE):
            path = Path(folder, name)
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue  # a picture, a socket
            yield source_file(path.relative_to(root).as_posix(), text)


def findings_in(files: Iterable[SourceFile]) -> Iterator[str]:
    """Yield a line for each place that breaks a rule."""
    for file in files:
        for rule in RULES:
            for finding in rule.check(file):
                yield f"{file.path}:{finding.line}: {rule.name}: {finding.what}. {rule.bug}"


def dotted_name(node: ast.expr) -> str:
    """Return a called name as it is written, its attributes included; '' for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value)}.{node.attr}"
    return ""


def _endings(name: str) -> Iterator[str]:
    """Yield what is left of a dotted name as its packages are taken off: a.b.c, b.c, c."""
    parts = name.split(".")
    for start in range(1, len(parts)):
        yield ".".join(parts[start:])


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all that runs when a module is imported: everything but the insides of functions."""
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
    """Check the repository; print what breaks a rule."""
    found = list(findings_in(source_files(ROOT)))
    print("\n".join(found) if found else f"house rules: {len(RULES)} kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
