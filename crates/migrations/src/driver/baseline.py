"""The baseline's part of the driver: it follows driver.py in one program."""


class Downgrade(Upgrade):
    """An upgrade the other way."""

    def way(self, heads):
        return list(self.script._downgrade_revs(self.to, heads))


class Stamp(Upgrade):
    """Says where the database stands; no revision runs.

    Alembic's own purge commits on its way. Here what the version table said is replaced in one transaction, also
    where it names revisions that nobody has any more.
    """

    def steps(self, heads, context):
        self.hold(
            context.connection,
            "planned",
            current=list(heads),
            revisions=[self.to],
            version_table=context.version_table,
            version_table_schema=context.version_table_schema,
            per_migration=context._transaction_per_migration,
        )
        version = context._version
        with context.begin_transaction(_per_migration=True):
            context.connection.execute(version.delete())
            context.connection.execute(version.insert().values(version_num=self.to))
        return ()


class Creation(Upgrade):
    """What `create_all` makes of the models that env.py gives Alembic."""

    def __init__(self, driver):
        super().__init__(driver, None)

    def options(self, script):
        return {"fn": self.steps, "dont_mutate": True}

    def steps(self, heads, context):
        metadata = context.opts.get("target_metadata")
        if metadata is None:
            raise LookupError("env.py gives Alembic no models (target_metadata)")
        # A connection of its own: env.py may never commit the one that it gave Alembic.
        with context.connection.engine.begin() as connection:
            for each in metadata if isinstance(metadata, (list, tuple)) else [metadata]:
                each.create_all(connection)
        return ()


def run_file(root, file, function):
    """As a module where it is one, so that it may import its neighbours."""
    import runpy

    parts = os.path.splitext(os.path.relpath(file, root))[0].split(os.sep)
    is_module = all(part.isidentifier() for part in parts)
    if function:
        names = vars(importlib.import_module(".".join(parts))) if is_module else runpy.run_path(file)
        names[function]()
    elif is_module:
        runpy.run_module(".".join(parts), run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(file, run_name="__main__")


