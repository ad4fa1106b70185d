"""The banner of `everturn dev`, printed once everything is ready."""

from datetime import timedelta
from pathlib import Path

from rich.table import Table

from workers.embedded.addresses import StackAddresses, without_password
from workers.embedded.data_directory import DEFAULT_PATH
from workers.embedded.logs import Terminal

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
        ("Logs", str(logs)),
    ):
        table.add_row(name, address)
    return table
