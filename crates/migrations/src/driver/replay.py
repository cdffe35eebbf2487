"""The gate's part of the driver: it follows driver.py in one program."""


class NeedsCommit(BaseException):
    """A round trip wants to commit, which one that is taken back cannot. No revision's `except Exception` hides it."""


class Replay(Upgrade):
    """An upgrade on a throw-away server. The checked revisions are applied, and then run again, down and up.

    With `committed`, down and up are steps of Alembic's own that stay, as on a real server. Without it, all
    is taken back afterwards, so that what follows finds the database as a plain upgrade leaves it.
    """

    def __init__(self, driver, request):
        super().__init__(driver, request["to"])
        self.request = request
        self.watched = set(request["checked"])
        self.trips = set(request["trips"])
        self.separate = set(request["separate"])
        self.context = None
        self.strict = False
        self.needs_commit = False

    def configured(self, context):
        self.context = context
        if self.driver.hidden:
            self.channel.send("hidden-group", **self.driver.hidden)
        autocommit_block = context.autocommit_block

        def refuse_or_go_on():
            self.refuse_commit()
            return autocommit_block()

        context.autocommit_block = refuse_or_go_on
        super().configured(context)

    def steps(self, heads, context):
        for step in super().steps(heads, context):
            revision = step.revision
            if revision.revision in self.separate:
                self.commit()
            yield self.marked(step, "applied")
            if revision.revision in self.trips:
                if self.request["committed"]:
                    yield from self.for_good(step)
                else:
                    self.round_trip(revision)
        self.mark("end", "")
        if self.request["models"]:
            self.compare_models()

    def marked(self, step, phase):
        run = step.migration_fn

        def run_marked(**arguments):
            self.mark(phase, step.revision.revision)
            run(**arguments)

        self.phase = phase
        step.migration_fn = run_marked
        return step

    def mark(self, phase, revision):
        watch = "full" if revision in self.watched else "off"
        values = ", ".join("'%s'" % each.replace("'", "''") for each in (phase, revision, watch))
        self.execute(OURS + "SELECT obyra_gate.mark(%s)" % values)

    def execute(self, sql):
        self.context.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

    def commit(self):
        """Ends the transaction here, as an autocommit block does; one of the application's own stays as it is."""
        context = self.context
        if context._transaction is not None and not context._in_external_transaction:
            context._transaction.commit()
            context._transaction = context.connection.begin()

    # -- down and up again ---------------------------------------------------------------------

    def for_good(self, step):
        for phase, is_upgrade in (("reversed", False), ("repeated", True)):
            self.commit()
            self.driver.stage = "revision"
            self.channel.send("begin", revision=step.revision.revision)
            self.began = time.monotonic()
            yield self.marked(type(step)(self.script.revision_map, step.revision, is_upgrade), phase)

    def round_trip(self, revision):
        connection = self.context.connection
        within = connection.in_transaction()
        self.execute(OURS + "SAVEPOINT obyra_gate")
        self.strict = True
        try:
            self.execute(OURS + "SAVEPOINT obyra_gate_again")
            self.attempt("again", revision, revision.module.upgrade)
            self.execute(OURS + "ROLLBACK TO SAVEPOINT obyra_gate_again")
            for phase, run in (("reversed", revision.module.downgrade), ("repeated", revision.module.upgrade)):
                if not self.attempt(phase, revision, run):
                    break
        finally:
            self.strict = False
            # A revision that sent COMMIT or ROLLBACK by itself took the savepoint with it: then this is where it fails.
            self.phase = "reversed"
            self.execute(OURS + "ROLLBACK TO SAVEPOINT obyra_gate")
            self.phase = "applied"
            if not within:
                connection.rollback()

    def attempt(self, phase, revision, run):
        connection = self.context.connection
        self.needs_commit, self.phase = False, phase
        self.driver.stage, self.driver.revision = "revision", revision.revision
        self.mark(phase, revision.revision)
        error = None
        self.began = time.monotonic()
        try:
            run()
        except (Exception, SystemExit, NeedsCommit) as raised:
            error = raised
        seconds = time.monotonic() - self.began
        failed = self.driver.describe(error) if error else None
        self.hold(connection, phase, revision=revision.revision, seconds=seconds, failed=failed, needs_commit=self.needs_commit)
        self.phase = "applied"
        return not error and not self.needs_commit

    def refuse_commit(self):
        if self.strict:
            self.needs_commit = True
            raise NeedsCommit

    def committing(self, connection):
        self.refuse_commit()
        super().committing(connection)

    # -- the models ----------------------------------------------------------------------------

    def compare_models(self):
        """What Alembic's own comparison finds, with the filters that env.py configures. It leaves no trace."""
        metadata = self.context.opts.get("target_metadata")
        facts = {"differences": [], "checks": [], "enums": []}
        if metadata is not None:
            connection = self.context.connection
            within = connection.in_transaction()
            self.execute(OURS + "SAVEPOINT obyra_gate_models")
            try:
                facts = self.declared(metadata)
            except Exception as error:
                facts["failed"] = "%s: %s" % (type(error).__name__, str(error).strip().partition("\n")[0])
            self.execute(OURS + "ROLLBACK TO SAVEPOINT obyra_gate_models")
            if not within:
                connection.rollback()
        self.channel.send("models", compared=metadata is not None, **facts)

    def declared(self, metadata):
        from alembic.autogenerate import compare_metadata

        differences = [each for found in compare_metadata(self.context, metadata) for each in flattened(found)]
        metadatas = metadata if isinstance(metadata, (list, tuple)) else [metadata]
        tables = [table for each in metadatas for table in each.tables.values()]
        return {
            "differences": [difference(each) for each in differences],
            "checks": [check for table in tables for check in declared_checks(table, self.context)],
            "enums": declared_enums(tables),
        }


def flattened(found):
    """Alembic groups the changes of one column in a list."""
    return found if isinstance(found, list) else [found]


def difference(found):
    """One difference as its kind, and what it is about."""
    kind, *about = found
    if kind.startswith("modify_"):
        schema, table, column, _, was, wanted = about[:6]
        return {"kind": kind, "name": ".".join(filter(None, (schema, table, column))), "detail": "%s -> %s" % (was, wanted)}
    if kind.endswith("_column"):
        schema, table, column = about
        return {"kind": kind, "name": ".".join(filter(None, (schema, table, column.name))), "detail": str(column.type)}
    thing = about[0]
    table = getattr(thing, "table", None)
    name = str(getattr(thing, "name", None) or thing)
    if table is not None:
        name = "%s on %s" % (name, table.fullname)
    return {"kind": kind, "name": name, "detail": ""}


def declared_checks(table, context):
    """CHECK constraints with a name, as the dialect writes them."""
    from sqlalchemy import CheckConstraint

    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint) and constraint.name and not getattr(constraint, "_type_bound", False):
            try:
                name = context.dialect.identifier_preparer.format_constraint(constraint)
                sql = str(constraint.sqltext.compile(dialect=context.dialect, compile_kwargs={"literal_binds": True}))
            except Exception:
                continue  # what the dialect cannot write, nobody can compare
            yield {"schema": table.schema, "table": table.name, "name": name.strip('"'), "sql": sql.replace("%%", "%")}


def declared_enums(tables):
    from sqlalchemy import Enum

    types = {}
    for table in tables:
        for column in table.columns:
            kind = getattr(column.type, "item_type", column.type)
            if isinstance(kind, Enum) and getattr(kind, "native_enum", True) and kind.name:
                types[(kind.schema or table.schema, kind.name)] = list(kind.enums)
    return [{"schema": schema, "name": name, "labels": labels} for (schema, name), labels in types.items()]


main()
