"""obyra-mini: construction budgets of several organisations in one database.

`create_app()` touches no database: it can run before the server, the roles or the tables exist.
"""

import os
import secrets

from flask import Flask

from . import database_commands, seeding, web
from .models import db, migrate


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=database_uri(os.environ.get("DATABASE_URL", "")),
        SQLALCHEMY_ENGINE_OPTIONS={"pool_pre_ping": True},
        # Several web processes must share one key; a single one can make its own.
        SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_hex(32),
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=os.environ.get("SESSION_COOKIE_SECURE") == "1",
    )
    db.init_app(app)
    # One transaction for each revision: what is done stays done when a later one fails.
    migrate.init_app(app, db, transaction_per_migration=True, include_name=seeding.belongs_to_alembic)
    database_commands.register()
    app.register_blueprint(web.pages)
    return app


def database_uri(url: str) -> str:
    """Any usual spelling of a PostgreSQL URL, for psycopg 3; without one, libpq's PG* variables decide."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "postgresql+psycopg://"
    if scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise RuntimeError(f"DATABASE_URL: '{scheme}' is not PostgreSQL; expected postgresql://")
    return f"postgresql+psycopg://{rest}"
