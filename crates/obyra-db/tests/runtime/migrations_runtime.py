"""What the application changes in its database whenever it starts, from years of one more column."""

import logging
import os
from contextlib import suppress

from psycopg.errors import DuplicateObject
from sqlalchemy import inspect, text

logger = logging.getLogger(__name__)

COLUMNS = {
    "projects": [("color", "text"), ("archived", "boolean NOT NULL DEFAULT false")],
    "users": [("phone", "text")],
}

_DONE = False


def exists(connection, name):
    return connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar() is not None


def exists_somewhere(connection, name):
    query = text("SELECT 1 FROM information_schema.tables WHERE table_name = :name")
    return connection.execute(query, {"name": name}).first() is not None


def ensure_columns(engine):
    inspector = inspect(engine)
    with engine.begin() as connection:
        for table, columns in COLUMNS.items():
            existing = {column["name"] for column in inspector.get_columns(table)}
            for name, kind in columns:
                if name not in existing:
                    connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {name} {kind}"))


def ensure_notes(connection):
    if exists(connection, "notes"):
        return
    connection.execute(text("CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)"))
    connection.execute(text("CREATE INDEX notes_body ON notes (body)"))


def ensure_tags(connection):
    if not exists_somewhere(connection, "tags"):
        connection.execute(text("CREATE TABLE tags (id int PRIMARY KEY)"))  # any schema's table will do


def ensure_labels(connection):
    if not exists(connection, "public.labels"):
        connection.execute(text("CREATE TABLE labels (id int PRIMARY KEY)"))  # made in app, looked for in public


def ensure_mood(connection):
    connection.execute(text("""
        DO $$ BEGIN
            CREATE TYPE mood AS ENUM ('good', 'bad');
        EXCEPTION WHEN duplicate_object THEN NULL; END $$
    """))


def ensure_log(connection):
    connection.execute(text("""
        DO $$ BEGIN
            CREATE TABLE change_log (at timestamptz, what text);
        EXCEPTION WHEN duplicate_object THEN NULL; END $$
    """))


def ensure_checks(connection):
    try:
        connection.execute(text("ALTER TABLE projects ADD CONSTRAINT projects_named CHECK (name <> '')"))
    except Exception:
        logger.info("projects_named is there already")
    try:
        connection.execute(text("ALTER TABLE projects ADD CONSTRAINT projects_numbered CHECK (id > 0)"))
    except DuplicateObject:
        logger.info("projects_numbered is there already; and the transaction is lost")
    try:
        with connection.begin_nested():
            connection.execute(text("ALTER TABLE users ADD CONSTRAINT users_named CHECK (name <> '')"))
    except DuplicateObject:
        logger.info("users_named is there already")


def ensure_rest(connection):
    extra = os.environ.get("EXTRA_COLUMN", "extra")
    connection.execute(text("ALTER TABLE users ADD COLUMN IF NOT EXISTS nickname text"))
    connection.execute(text("UPDATE users SET nickname = name WHERE nickname IS NULL"))
    connection.execute(text("UPDATE users SET logins = logins + 1"))
    connection.execute(text("ALTER TABEL users ADD COLUMN age int"))
    connection.execute(text("ALTER TABLE nowhere ADD COLUMN IF NOT EXISTS age int"))
    connection.execute(text(f"ALTER TABLE users ADD COLUMN IF NOT EXISTS {extra} text"))
    if os.environ.get("DEMO"):
        connection.execute(text("CREATE TABLE demo_rows (id int)"))
    with suppress(Exception):
        connection.execute(text("DROP VIEW IF EXISTS old_report"))


def run(engine):
    global _DONE
    if _DONE:
        return
    ensure_columns(engine)
    with engine.begin() as connection:
        ensure_notes(connection)
        for step in (ensure_tags, ensure_labels, ensure_mood, ensure_log, ensure_checks, ensure_rest):
            step(connection)
    _DONE = True
