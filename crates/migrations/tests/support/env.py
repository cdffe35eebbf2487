"""The environment of the tests' projects; {before} and {options} are filled in by each of them."""

import os

from alembic import context
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"])
print("env.py prints, and nobody is disturbed")
with engine.connect() as connection:
    {before}
    context.configure(connection=connection, target_metadata=None{options})
    with context.begin_transaction():
        context.run_migrations()
