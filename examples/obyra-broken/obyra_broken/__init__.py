"""An application that changes its schema wherever it runs."""

import os

import click
from flask import Flask
from flask.cli import AppGroup
from sqlalchemy import text

from .extensions import db, migrate
from .models import Client


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db.init_app(app)
    migrate.init_app(app, db)
    app.cli.add_command(database_group)
    app.add_url_rule("/setup", view_func=setup)
    with app.app_context():
        alter_at_boot()
    return app


# Flask-Migrate registers a group `db` as well; the application's own comes first.
database_group = AppGroup("db")


@database_group.command("hello")
def hello() -> None:
    click.echo("no upgrade here")


def alter_at_boot() -> None:
    statements = ["CREATE TABLE IF NOT EXISTS sessions (id text)", "ALTER TABLE legacy ADD COLUMN IF NOT EXISTS note text"]
    for statement in statements:
        try:
            with db.engine.begin() as connection:
                connection.execute(text(statement))
        except Exception:
            pass


def setup() -> str:
    Client.__table__.create(db.engine, checkfirst=True)
    db.create_all()
    return "ready"
