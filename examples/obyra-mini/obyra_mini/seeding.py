"""`flask db seed [ENV]`: the seeds of migrations/seeds, applied and recorded by obyra-db."""

import shutil
import subprocess

import click
from flask_migrate.cli import db as database_commands


@click.command("seed")
@click.argument("environment", envvar="OBYRA_DB_ENV")
def seed(environment: str) -> None:
    """Apply the seeds of ENVIRONMENT (default: $OBYRA_DB_ENV)."""
    if shutil.which("obyra-db") is None:
        raise click.ClickException("obyra-db is not on the PATH")
    raise SystemExit(subprocess.call(["obyra-db", "seed", "apply", environment, "--yes"]))


def register() -> None:
    database_commands.add_command(seed)


def belongs_to_alembic(name: str | None, kind: str, parents: dict) -> bool:
    """False for the table in which obyra-db records the seeds: no model has it, and no revision may drop it."""
    return not (kind == "table" and name == "obyra_seeds")
