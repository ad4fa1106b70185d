"""Lets `python -m workers` be the command line."""

from workers.command_line import app

app()
