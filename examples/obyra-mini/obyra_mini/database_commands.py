"""`flask db gate` and `flask db seed`: obyra-db's verbs, in Flask-Migrate's own command group.

Written by `obyra-db migrate flask-commands`; call `register()` where the application is made.
"""

import shutil
import subprocess

import click
from flask_migrate.cli import db as database_commands


@click.command("gate", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def gate(arguments: tuple[str, ...]) -> None:
    """Can this branch's migrations be deployed? ARGUMENTS are those of `obyra-db migrate gate`."""
    run("migrate", "gate", *arguments)


@click.command("seed")
@click.argument("environment", envvar="OBYRA_DB_ENV")
def seed(environment: str) -> None:
    """Apply the seeds of ENVIRONMENT (default: $OBYRA_DB_ENV)."""
    run("seed", "apply", environment, "--yes")


def run(*arguments: str) -> None:
    """Ends as obyra-db ends: with its output and its exit code."""
    program = shutil.which("obyra-db")
    if program is None:
        raise click.ClickException("obyra-db is not on the PATH")
    raise SystemExit(subprocess.call([program, *arguments]))


def register() -> None:
    """Adds to the group that Flask-Migrate has; a group of one's own would hide it."""
    for command in (gate, seed):
        database_commands.add_command(command)
