"""Owns `everturn admin`: its commands together, and the options that stand before them."""

from pathlib import Path
from typing import Annotated, Final

import typer

from workers.administration import people_commands, tool_commands, turn_commands
from workers.administration.target import Target

_DATA_DIR: Final = Path(".everturn")

app = typer.Typer(no_args_is_help=True, help="Administer an API that runs.")
for commands in (people_commands, tool_commands, turn_commands):
    app.add_typer(commands.app)


@app.callback()
def target(
    context: typer.Context,
    *,
    url: Annotated[str | None, typer.Option(help="The API; else that of `everturn dev`.")] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Where `everturn dev` keeps its addresses.")
    ] = _DATA_DIR,
    email: Annotated[str | None, typer.Option(envvar="EVERTURN_EMAIL")] = None,
) -> None:
    """Administer an API that runs, signed in as an administrator."""
    context.obj = Target(url, data_dir, email)
