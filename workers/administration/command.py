"""`everturn admin`: its commands together, and the options that stand before them."""

from typing import Annotated

import typer

from workers.administration import content_commands, people_commands, tool_commands
from workers.administration.options import DATA_DIR, ApiUrl, DevDataDir, Target

app = typer.Typer(no_args_is_help=True, help="Administer a running API.")
for commands in (people_commands, tool_commands, content_commands):
    app.add_typer(commands.app)


@app.callback()
def target(
    context: typer.Context,
    *,
    url: ApiUrl = None,
    data_dir: DevDataDir = DATA_DIR,
    email: Annotated[
        str | None, typer.Option(envvar="EVERTURN_EMAIL", help="The administrator to sign in as.")
    ] = None,
) -> None:
    """Administer a running API, signed in as an administrator."""
    context.obj = Target(url, data_dir, email)
