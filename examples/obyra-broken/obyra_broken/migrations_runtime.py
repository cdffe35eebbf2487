"""Alters the tables whenever the application starts; each in a way that cannot be repeated, or asks the wrong question."""

from sqlalchemy import inspect, text


def ensure(engine) -> None:
    with engine.begin() as connection:
        # The server raises duplicate_table.
        connection.execute(text("""
            DO $$ BEGIN
                CREATE TABLE sessions (id text);
                CREATE INDEX IF NOT EXISTS sessions_id ON sessions (id);
            EXCEPTION WHEN duplicate_object THEN NULL; END $$
        """))
        # Any schema's table will do.
        found = connection.execute(text("SELECT 1 FROM information_schema.tables WHERE table_name = 'carts'")).first()
        if not found:
            connection.execute(text("CREATE TABLE carts (id int PRIMARY KEY)"))
        # Made in app, looked for in public.
        if connection.execute(text("SELECT to_regclass('public.notes')")).scalar() is None:
            connection.execute(text("CREATE TABLE notes (id int PRIMARY KEY)"))
        # A row of one NULL is a row: this never runs.
        if not connection.execute(text("SELECT to_regclass('taxes')")).first():
            connection.execute(text("CREATE TABLE taxes (id int PRIMARY KEY)"))
        connection.execute(text("ALTER TABLE clients ADD CHECK (name <> '')"))
        connection.execute(text("UPDATE clients SET visits = visits + 1"))
        connection.execute(text("DROP TABLE IF EXISTS totals"))
        connection.execute(text("CREATE TABLE totals AS SELECT count(*) FROM clients"))
        try:
            connection.execute(text("ALTER TABLE clients ADD COLUMN email text"))
        except Exception:
            pass
        for column in inspect(engine).get_columns("clients"):
            connection.execute(text(f"COMMENT ON COLUMN clients.{column['name']} IS 'a column'"))
