"""Alembic's way into the application: its engine, its models.

Nothing runs on the connection before `context.configure()`: a statement there would open a
transaction that Alembic takes for the caller's and never commits. The schema is the role's
search_path, set in the database.
"""

from logging.config import fileConfig

from alembic import context
from flask import current_app

config = context.config
if config.config_file_name:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

migrate = current_app.extensions["migrate"]
database = migrate.db


def run_offline() -> None:
    url = database.engine.url.render_as_string(hide_password=True)
    context.configure(url=url, target_metadata=database.metadata, literal_binds=True, **migrate.configure_args)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    with database.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=database.metadata, **migrate.configure_args)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
