"""`make load`: scenarios that locust plays, with gates.

    python -m tests.load.load [--url URL] [--scenarios api,streams,tools,soak] [--users N]
                              [--duration SECONDS] [--rate TURNS] [--output dist/load]

Without a URL it starts a stack like that of `everturn dev`, with a scripted model. What is deployed
at a URL should have the demo model, and EVERTURN_RATE_LIMITS=false for as long: others cost money,
call tools when they like, and refused requests fail the run.

The output folder gets every sample, and a plot of each scenario. Locust runs in a process of its
own, with packages of its own: importing it replaces sockets and threads.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from api.routing import API_PREFIX
from tests.load.client import spread
from tests.load.report import Line, Report
from tests.load.stacks import Stack, open_stack, run_program
from tests.load.watching import Watched, judge_growth, watch
from tests.running_everturn.model import ModelControl

_ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = Path(sys.prefix) / "share" / "everturn" / "load"
"""Where `make load` installs locust and matplotlib."""

_MOST_ACCOUNTS: Final = 32
_PASSWORD: Final = uuid4().hex
_TO_FINISH_S: Final = 30
_REPEAT: Final = 1_000_000
_SHOWN_ERRORS: Final = 5
_READ_MS: Final = 100
_API_MS: Final = 500
_SCRIPTS: Final[Sequence[Mapping[str, Any]]] = (
    # About four seconds: long enough to join in the middle.
    {
        "match": "follow",
        "pieces": [f"piece {number} " for number in range(20)],
        "delay_to_first_s": 0.2,
        "delay_between_s": 0.2,
        "repeat": _REPEAT,
    },
    {
        "match": "plain",
        "pieces": [f"piece {number} " for number in range(10)],
        "delay_to_first_s": 0.05,
        "delay_between_s": 0.01,
        "repeat": _REPEAT,
    },
    # Without content the model follows its rules, by which it calls the tools.
    {"delay_to_first_s": 0.05, "delay_between_s": 0.0, "repeat": _REPEAT},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Classes of `scenarios.py` to run, and by name the limits of 95th percentiles.

    Units: `duration_s` in seconds, `rate` in turns per second, `gates` in milliseconds.
    """

    classes: tuple[str, ...]
    users: int
    duration_s: float
    rate: float = 1.0
    gates: Mapping[str, float] = field(default_factory=dict)
    is_watched: bool = False


SCENARIOS: Final = {
    "api": Scenario(
        classes=("ApiUser",),
        users=20,
        duration_s=30,
        gates={
            **dict.fromkeys(("GET chats", "GET messages", "GET turn", "GET memories"), _READ_MS),
            **dict.fromkeys(("POST chat", "POST memory", "DELETE chat", "DELETE memory"), _API_MS),
        },
    ),
    "streams": Scenario(
        classes=("Performer", "Follower"),
        users=200,
        duration_s=30,
        gates=dict.fromkeys(("first event", "done, after the first reader"), _API_MS),
    ),
    "tools": Scenario(
        classes=("ToolCaller",),
        users=16,
        duration_s=30,
        gates=dict.fromkeys(("POST message", "first event"), _API_MS),
    ),
    # As many turns as in an hour at one a second.
    "soak": Scenario(
        classes=("Chatter",),
        users=32,
        duration_s=400,
        rate=9.0,
        gates=dict.fromkeys(("POST message", "first event", "GET messages"), _API_MS),
        is_watched=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tested: its URL, and its processes where they are this machine's."""

    url: str
    stack: Stack | None = None


async def run(
    subject: Subject, scenarios: Mapping[str, Scenario], report: Report, output: Path
) -> None:
    """Run scenarios one after the other. `output` is an absolute path."""
    wanted = max(scenario.users for scenario in scenarios.values())
    async with _accounts(subject.url, min(wanted, _MOST_ACCOUNTS)) as accounts:
        with _listed(accounts) as listed:
            for name, scenario in scenarios.items():
                sys.stderr.write(f"{name}: {scenario.users} users, {scenario.duration_s:g} s\n")
                samples = output / f"{name}.jsonl"
                users = scenario.users + len(accounts) * ("Performer" in scenario.classes)
                watched = await _play(
                    subject, scenario, users=users, accounts=listed, samples=samples
                )
                judge(name, scenario, samples, report)
                if watched:
                    judge_growth(watched, report)
    await _draw(output, scenarios)


@contextmanager
def _listed(accounts: Sequence[Mapping[str, str]]) -> Iterator[Path]:
    """Write the accounts, keys included, into a file that only this user reads."""
    with tempfile.NamedTemporaryFile("w", prefix="everturn-load-", suffix=".json") as file:
        json.dump(accounts, file)
        file.flush()
        yield Path(file.name)


async def _play(
    subject: Subject, scenario: Scenario, *, users: int, accounts: Path, samples: Path
) -> list[Watched]:
    """Let locust play one scenario; return what was watched, where our processes are at hand."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--locustfile", str(Path(__file__).with_name("scenarios.py")), "--host", subject.url),
        *("--users", str(users), "--spawn-rate", str(max(10, users // 2))),
        *("--run-time", f"{scenario.duration_s:g}s", "--stop-timeout", str(_TO_FINISH_S)),
        *("--exit-code-on-error", "0", *scenario.classes),
        cwd=_ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PACKAGES), str(_ROOT)]),
            "LOAD_ACCOUNTS": str(accounts),
            "LOAD_SAMPLES": str(samples),
            "LOAD_RATE": str(scenario.rate),
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    ending = asyncio.create_task(process.communicate())
    watched: list[Watched] = []
    try:
        if scenario.is_watched and subject.stack is not None:
            file = samples.with_suffix(".watched.jsonl")
            watched = await watch(subject.stack, until=ending, written=file)
        _, said = await ending
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode:
        raise SystemExit(f"locust ended with {process.returncode}:\n{said.decode()}")
    return watched


def judge(name: str, scenario: Scenario, samples: Path, report: Report) -> None:
    """Add a line for everything that was timed, and one for what failed."""
    times: dict[str, list[float]] = {gated: [] for gated in scenario.gates}
    errors: list[str] = []
    for line in samples.read_text().splitlines():
        sample = json.loads(line)
        if "error" in sample:
            errors.append(f"{sample['name']}: {sample['error']}")
        else:
            times.setdefault(sample["name"], []).append(sample["ms"])
    for timed, waited in times.items():
        if len(waited) < 2:
            errors.append(f"{timed}: timed {len(waited)} times")
            continue
        value = spread(waited)
        report.add(
            Line(
                name=f"{timed}, p95",
                shape=f"{name}, {scenario.users} users",
                value=value.p95,
                target=scenario.gates.get(timed),
            )
        )
        report.note(f"{name}, {timed}: {len(waited)} times, p50 {value.p50:.0f} ms.")
    report.add(Line(name="failed", shape=name, value=len(errors), unit="", target=0))
    for error in sorted(set(errors))[:_SHOWN_ERRORS]:
        report.note(f"{name} failed: {error}")


@asynccontextmanager
async def _accounts(url: str, number: int) -> AsyncIterator[list[dict[str, str]]]:
    """Sign up users with an answered turn and a memory each; delete them in the end."""
    async with httpx.AsyncClient(
        base_url=f"{url}{API_PREFIX}/", timeout=60, trust_env=False
    ) as http:
        accounts = [await _sign_up(http) for _ in range(number)]
        try:
            yield accounts
        finally:
            for account in accounts:
                await _leave(http, account)


async def _sign_up(http: httpx.AsyncClient) -> dict[str, str]:
    """Create an account; its key outlives access tokens."""
    email = f"load-{uuid4().hex}@example.com"
    session = await _post(http, "auth/signup", {"email": email, "password": _PASSWORD})
    key = (await _post(http, "users/me/api-keys", {"name": "load"}, session["accessToken"]))["key"]
    chat = await _post(http, "chats", {"title": "Read by load tests"}, key)
    message = {"content": "Say something plain.", "stream": False}
    answered = await _post(http, f"chats/{chat['id']}/messages", message, key)
    await _post(http, "memories", {"content": "The garden has two pear trees."}, key)
    return {"email": email, "key": key, "chatId": chat["id"], "turnId": answered["turn"]["id"]}


async def _leave(http: httpx.AsyncClient, account: Mapping[str, str]) -> None:
    login = {"email": account["email"], "password": _PASSWORD}
    session = await _post(http, "auth/login", login)
    response = await http.request(
        "DELETE",
        "users/me",
        json={"currentPassword": _PASSWORD},
        headers={"Authorization": f"Bearer {session['accessToken']}"},
    )
    response.raise_for_status()


async def _post(
    http: httpx.AsyncClient, path: str, body: Mapping[str, object], token: str = ""
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = await http.post(path, json=body, headers=headers)
    if response.is_error:
        raise SystemExit(f"{path}: {response.status_code} {response.text[:300]}")
    data: dict[str, Any] = response.json()["data"]
    return data


async def _draw(output: Path, names: Collection[str]) -> None:
    """Plot what was sampled, with locust's packages."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("plots.py")), str(output), *names),
        env={**os.environ, "PYTHONPATH": str(PACKAGES), "MPLCONFIGDIR": str(PACKAGES)},
    )
    if await process.wait():
        raise SystemExit("the plots could not be drawn")


@asynccontextmanager
async def _subject(url: str | None) -> AsyncIterator[Subject]:
    """Yield what is at the URL, or a stack of our own."""
    if url is not None:
        yield Subject(url.rstrip("/"))
        return
    with tempfile.TemporaryDirectory(prefix="everturn-load-") as folder:
        async with run_program("tests.fakes.scripted_model") as (port, _):
            model = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=model, trust_env=False) as http:
                for script in _SCRIPTS:
                    await ModelControl(http).script(**script)
            async with open_stack(
                Path(folder),
                as_in_production=True,
                settings={
                    "ANTHROPIC_BASE_URL": model,
                    "ANTHROPIC_API_KEY": "load",
                    # A minute for an hour: what finished turns leave in Valkey must end, too.
                    "EVERTURN_EVENT_RETENTION_S": "60",
                },
            ) as stack:
                yield Subject(stack.api, stack)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, and create the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="what is deployed there, instead of a stack of its own")
    parser.add_argument(
        "--scenarios", help=f"some of {','.join(SCENARIOS)}; by default all, at a URL without soak"
    )
    parser.add_argument("--users", type=int, help="in each scenario, instead of its own number")
    parser.add_argument("--duration", type=float, help="of each scenario, in seconds")
    parser.add_argument("--rate", type=float, help="of the soak, in turns a second")
    parser.add_argument("--output", type=Path, default=_ROOT / "dist" / "load")
    arguments = parser.parse_args(words)
    arguments.output = arguments.output.resolve()
    arguments.output.mkdir(parents=True, exist_ok=True)
    return arguments


def chosen_scenarios(arguments: argparse.Namespace) -> dict[str, Scenario]:
    """Return the scenarios to run, as the arguments change them."""
    # A soak is thousands of turns: nobody runs it by accident where a real model answers.
    usual = [name for name in SCENARIOS if name != "soak" or arguments.url is None]
    names = arguments.scenarios.split(",") if arguments.scenarios else usual
    if unknown := set(names) - SCENARIOS.keys():
        raise SystemExit(f"unknown scenario: {', '.join(sorted(unknown))}")
    return {
        name: Scenario(
            classes=scenario.classes,
            users=arguments.users or scenario.users,
            duration_s=arguments.duration or scenario.duration_s,
            rate=arguments.rate or scenario.rate,
            gates=scenario.gates,
            is_watched=scenario.is_watched,
        )
        for name in names
        for scenario in [SCENARIOS[name]]
    }


async def _main() -> int:
    arguments = parse_arguments()
    scenarios = chosen_scenarios(arguments)
    output: Path = arguments.output
    report = Report()
    async with _subject(arguments.url) as subject:
        await run(subject, scenarios, report, output)
    page = report.markdown()
    await asyncio.to_thread((output / "report.md").write_text, page)
    sys.stdout.write(page)
    missed = [line.name for line in report.lines if line.is_met is False]
    if missed:
        sys.stderr.write(f"Gates not met: {', '.join(missed)}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(_main()))
    except KeyboardInterrupt:
        sys.exit(130)
