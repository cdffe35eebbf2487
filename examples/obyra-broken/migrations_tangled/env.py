"""The SET opens a transaction that Alembic takes for the caller's: nothing is ever committed."""

from alembic import context
from flask import current_app
from sqlalchemy import text

database = current_app.extensions["migrate"].db

with database.engine.connect() as connection:
    connection.execute(text("SET search_path TO app"))
    context.configure(
        connection=connection, target_metadata=database.metadata, version_table_schema="audit"
    )
    with context.begin_transaction():
        context.run_migrations()
