"""`everturn dev`: all of Everturn on one machine, from start to Ctrl-C, and its banner."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from services.settings import Settings, read_settings
from services.setup_errors import SetupError
from workers.embedded.addresses import StackAddresses, without_password
from workers.embedded.data_directory import DEFAULT_PATH
from workers.embedded.errors import EmbeddedStackError
from workers.embedded.fork_server import ForkServer
from workers.embedded.logs import Terminal
from workers.embedded.stack import Commands, DevelopmentStack

_CURL = """\
api={api}/api/v1
me='{{"email": "ada@example.com", "password": "correct horse battery staple"}}'
post() {{ route=$1 body=$2; shift 2; \
curl -sSN "$api/$route" -H 'Content-Type: application/json' -d "$body" "$@"; }}
pick() {{ python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][sys.argv[1]])' "$1"; }}
token=$(post auth/signup "$me" | pick accessToken 2>/dev/null || \
post auth/login "$me" | pick accessToken)
chat=$(post chats '{{"title": "First chat"}}' -H "Authorization: Bearer $token" | pick id)
post "chats/$chat/messages" '{{"content": "What is 6 * 7?", "stream": true}}' \
-H "Authorization: Bearer $token"
"""


def curl_example(api: str) -> str:
    """Return shell lines that sign up, or log in if the account exists, and stream an answer."""
    return _CURL.format(api=api)


def announce(
    terminal: Terminal, addresses: StackAddresses, *, demo: bool, data: Path, took: timedelta
) -> None:
    """Print the addresses, how to sign in, and lines to paste."""
    terminal.show(_table(addresses, demo=demo, logs=data / "logs"))
    # Without a URL it reads the addresses of the default data directory.
    chat = "everturn chat"
    if data != DEFAULT_PATH.absolute():
        chat += f" --url {addresses.api}"
    terminal.plain(
        f"\nChat in another terminal: {chat}\n"
        "Sign up: POST /api/v1/auth/signup with an email address and a password, as below. "
        "EVERTURN_ADMIN_EMAIL and EVERTURN_ADMIN_PASSWORD create an administrator.\n"
        f"All endpoints: {addresses.docs}. Or paste this into a shell:\n"
    )
    terminal.plain(curl_example(addresses.api))
    terminal.say(f"Ready in {took.total_seconds():.1f} s. Ctrl-C stops everything.")


def _table(addresses: StackAddresses, *, demo: bool, logs: Path) -> Table:
    table = Table(title="Everturn", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    model = addresses.model
    if demo:
        model += "\na demo with fixed rules, not a language model; set ANTHROPIC_API_KEY for one"
    for name, address in (
        ("API", addresses.api),
        ("API documentation", addresses.docs),
        ("Temporal UI", addresses.temporal_ui),
        ("Temporal", addresses.temporal),
        ("Database", without_password(addresses.database)),
        ("Valkey", without_password(addresses.redis)),
        ("Model", model),
        ("Metrics", "\n".join(f"{url} ({name})" for name, url in addresses.metrics.items())),
        ("Logs", str(logs)),
    ):
        table.add_row(name, address)
    return table


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_dev(
    data_dir: Path | None = None,
    *,
    ephemeral: bool = False,
    port: int | None = None,
    host: str | None = None,
    commands: Commands | None = None,
    fork_server: ForkServer | None = None,
) -> None:
    """Run everything until Ctrl-C, SIGTERM or SIGHUP, and return when all of it has stopped.

    `port` and `host` of the API come from the settings where they are left out; port 0 is any.
    Errors: SystemExit with code 1, after a sentence on standard error.
    """
    begun = time.monotonic()
    try:
        settings = _settings(port=port, host=host)
        stack = DevelopmentStack(
            data_dir,
            settings=settings,
            ephemeral=ephemeral,
            terminal=(terminal := Terminal()),
            commands=commands,
            fork_server=fork_server,
        )
        asyncio.run(_run_until_stopped(stack, terminal, begun))
    except (EmbeddedStackError, SetupError) as error:
        _give_up(str(error))


def _give_up(sentence: str) -> NoReturn:
    Console(stderr=True).print(sentence, style="red", markup=False, soft_wrap=True)
    raise SystemExit(1)


async def _run_until_stopped(stack: DevelopmentStack, terminal: Terminal, begun: float) -> None:
    """Open the stack, wait for a signal and close it; a second signal kills at once."""
    with _stop_signals(then=stack.kill_all) as stop:
        try:
            await _open(stack, stop)
            if not stop.is_set():
                _announce(stack, terminal, begun)
                await stop.wait()
        finally:
            await stack.close()
    terminal.say("Everturn has stopped.")


async def _open(stack: DevelopmentStack, stop: asyncio.Event) -> None:
    """Open the stack; a signal that comes before it is ready ends the opening."""
    opening = asyncio.create_task(stack.open())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await opening


def _announce(stack: DevelopmentStack, terminal: Terminal, begun: float) -> None:
    announce(
        terminal,
        stack.addresses,
        demo=stack.has_demo_model,
        data=stack.directory.path,
        took=timedelta(seconds=time.monotonic() - begun),
    )


@contextmanager
def _stop_signals(*, then: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Yield an event that the first signal to stop sets; further signals call `then`."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def handle() -> None:
        if stop.is_set():
            then()
        stop.set()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, handle)
    try:
        yield stop
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


def _settings(*, port: int | None, host: str | None) -> Settings:
    given = {"api_port": port, "api_host": host}
    return read_settings(**{name: value for name, value in given.items() if value is not None})
