"""Whether what a container runs is a command of `everturn`, with options that it has."""

from functools import cache

from typer.testing import CliRunner

from workers.command_line import app


@cache
def is_command(*arguments: str) -> bool:
    """Whether `everturn` accepts these arguments. Nothing runs: it is asked for its help."""
    return CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
