"""What the commands share: options, reading JSON, and opening a session when a command runs."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from workers.administration.session import Administration

DATA_DIR: Final = Path(".everturn")

ApiUrl = Annotated[
    str | None, typer.Option(help="URL of the API, by default that of `everturn dev`.")
]
DevDataDir = Annotated[Path, typer.Option(help="The data directory of `everturn dev`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")]
UserName = Annotated[str, typer.Argument(metavar="USER", help="The user's ID or email.")]
UserFilter = Annotated[str | None, typer.Option(help="Filter by user: an ID or an email.")]
Since = Annotated[str | None, typer.Option(help="Start of the range, e.g. 2026-01-31T00:00:00Z.")]
Until = Annotated[str | None, typer.Option(help="End of the range, e.g. 2026-01-31T00:00:00Z.")]


@dataclass(frozen=True, slots=True)
class Target:
    """The API to administer, and as whom."""

    url: str | None
    data_dir: Path
    email: str | None


@contextmanager
def administration(context: typer.Context) -> Iterator["Administration"]:
    """Open a session with the API that the options name. Errors: typer.Exit."""
    # Imported here, so that `everturn --help` stays quick.
    from workers.administration.session import open_administration  # noqa: PLC0415 -- see above

    target = context.find_object(Target)
    if target is None:
        raise typer.Exit(1)
    with open_administration(target.url, target.data_dir, email=target.email) as opened:
        yield opened


def given(**fields: object) -> dict[str, Any]:
    """Return the fields of a change that were given as options."""
    return {name: value for name, value in fields.items() if value is not None}


def json_object(text: str, *, name: str) -> dict[str, Any]:
    """Return the JSON object in `text`. Errors: typer.BadParameter."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise typer.BadParameter("must be valid JSON", param_hint=name) from None
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object", param_hint=name)
    return value


def pairs(values: Sequence[str] | None, *, name: str) -> dict[str, str]:
    """Return names with their values. Errors: typer.BadParameter."""
    divided = [pair.partition("=") for pair in values or ()]
    if not all(key and sign for key, sign, _ in divided):
        raise typer.BadParameter("must be NAME=VALUE", param_hint=name)
    return {key: value for key, _, value in divided}


def text_of(file: Path | None, *, name: str) -> str:
    """Return the text of a file, or of the standard input for `-`. Errors: typer.BadParameter."""
    if file is None:
        raise typer.BadParameter("is required", param_hint=name)
    try:
        return typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"can't read {file}: {error}", param_hint=name) from None
