"""`everturn admin`: its commands together, and the options that stand before them."""

from pathlib import Path
from typing import Annotated, Final

import typer

from workers.administration import content_commands, people_commands, tool_commands
from workers.administration.options import Target

_DATA_DIR: Final = Path(".everturn")

app = typer.Typer(no_args_is_help=True, help="Administer a running API.")
for commands in (people_commands, tool_commands, content_commands):
    app.add_typer(commands.app)


@app.callback()
def target(
    context: typer.Context,
    *,
    url: Annotated[
        str | None, typer.Option(help="URL of the API, by default that of `everturn dev`.")
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="The data directory of `everturn dev`.")
    ] = _DATA_DIR,
    email: Annotated[
        str | None, typer.Option(envvar="EVERTURN_EMAIL", help="The administrator to sign in as.")
    ] = None,
) -> None:
    """Administer a running API, signed in as an administrator."""
    context.obj = Target(url, data_dir, email)
