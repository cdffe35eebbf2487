"""The gate's part of the driver: it follows driver.py in one program."""


# What an upgrade needs to be able to skip what exists already.
GUARD = re.compile(r"exists|inspect|has_table|get_table|to_regclass|information_schema|pg_catalog|checkfirst|except", re.I)


# Statements that change rows or lock tables without changing the catalogue, of which no event trigger tells.
WRITES = re.compile(r"(?:^|;)\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*(?:update|delete|merge|lock|truncate|do|call|with)\b", re.I | re.S)


CLASS = re.compile(r"\s*class (\w+)")


def may_be_guarded(file):
    with open(file, encoding="utf-8", errors="replace") as source:
        return bool(GUARD.search(source.read()))


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
        self.phase = "applied"
        self.strict = False
        self.needs_commit = False
        self.watching = True  # until the first mark, nobody knows
        self.unseen = True
        self.looks = self.holds = False
        self.begun = None
        self.arguments = {}  # that env.py gives run_migrations(), for every revision

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
        from sqlalchemy import event

        event.listen(context.connection, "before_cursor_execute", self.before_statement)
        event.listen(context.connection, "after_cursor_execute", self.after_statement)

    def steps(self, heads, context):
        steps = self.plan(heads, context)
        for step, following in zip(steps, [*steps[1:], None]):
            revision = step.revision
            self.start(revision.revision)
            if revision.revision in self.separate:
                self.commit()
            self.holds = following is None
            self.looks = self.is_watched(step) or self.is_watched(following)
            yield self.marked(step, "applied")
            self.driver.stage = "environment"
            if revision.revision in self.trips:
                if self.request["committed"]:
                    yield from self.for_good(step)
                else:
                    self.round_trip(revision)
        self.driver.stage, self.driver.revision = "environment", None
        self.mark("end", "")
        if self.request["models"]:
            self.compare_models()

    def more_about(self, steps):
        self.mark("planned", "")
        return {"look": self.look()} if steps and self.is_watched(steps[0]) else {}

    def is_watched(self, step):
        return step is not None and step.revision.revision in self.watched

    def start(self, revision):
        self.driver.stage, self.driver.revision = "revision", revision
        self.channel.send("begin", revision=revision)
        self.began = time.monotonic()

    def marked(self, step, phase):
        run = step.migration_fn
        revision = step.revision.revision

        def run_marked(**arguments):
            self.arguments = arguments
            # One that nobody watches needs no mark of its own, but must be seen to be no longer the one before.
            if revision in self.watched or self.watching:
                self.mark(phase, revision)
                self.began = time.monotonic()
            run(**arguments)

        self.phase = phase
        step.migration_fn = run_marked
        return step

    def mark(self, phase, revision):
        self.execute(self.mark_of(phase, revision))

    def mark_of(self, phase, revision):
        self.watching = revision in self.watched
        watch = "off" if not self.watching else "full" if phase == "applied" else "touched"
        values = (phase, revision, watch)
        return "SELECT obyra_gate.mark(%s)" % ", ".join("'%s'" % each.replace("'", "''") for each in values)

    def execute(self, *statements):
        """Past SQLAlchemy, which would only tell itself of it; but it must know that a transaction has begun."""
        connection = self.context.connection
        if not connection.in_transaction():
            self.begun = connection.begin()
        if self.context.dialect.driver != "asyncpg":  # which prepares them, one at a time
            statements = ("; ".join(statements),)
        cursor = connection.connection.cursor()
        try:
            for statement in statements:
                cursor.execute(OURS + statement)
            return cursor.fetchone() if cursor.description else None
        finally:
            cursor.close()

    def look(self):
        """What changed since the last look; all, after revisions that nobody watched."""
        (seen,) = self.execute("SELECT obyra_gate.look(%s)::text" % ("true" if self.unseen else "false"))
        self.unseen = False
        return json.loads(seen)

    def applied(self, ctx, step, heads, run_args):
        """In place of a hold: what is seen is told, and the driver goes on. Only at the end it waits."""
        seconds = time.monotonic() - self.began
        self.transaction["committed"] = False
        revision = step.up_revision_id
        if self.phase != "applied":
            self.channel.send(self.phase, revision=revision, seconds=seconds, look=self.look())
            return
        self.unseen |= revision not in self.watched
        look = self.look() if self.looks or (self.holds and self.request["models"]) else None
        self.channel.send("passed", revision=revision, seconds=seconds, look=look)
        if self.holds:
            self.hold(ctx.connection, "applied", revision=revision, seconds=seconds)

    def commit(self):
        """Ends the transaction here, as an autocommit block does; one of the application's own stays as it is."""
        context = self.context
        if context._transaction is not None and not context._in_external_transaction:
            context._transaction.commit()
            context._transaction = context.connection.begin()

    # -- what statements do to tables ----------------------------------------------------------

    def is_measured(self, statement):
        measured = self.watching and self.phase == "applied" and self.driver.stage == "revision"
        if not measured or statement.startswith(OURS) or self.context.version_table in statement:
            return False
        return WRITES.search(statement)

    def before_statement(self, connection, cursor, statement, parameters, context, executemany):
        if self.is_measured(statement):
            self.execute("SELECT obyra_gate.before_statement()")

    def after_statement(self, connection, cursor, statement, parameters, context, executemany):
        if self.is_measured(statement):
            (tables,) = self.execute("SELECT obyra_gate.after_statement()::text")
            if tables != "[]":
                facts = {"sql": statement[:STATEMENT_CHARS], "place": self.driver.caller((self.driver.scripts, self.driver.root))}
                self.channel.send("wrote", revision=self.driver.revision, tables=json.loads(tables), **facts)

    # -- down and up again ---------------------------------------------------------------------

    def for_good(self, step):
        impl = self.context.impl
        memo = impl.memo
        for phase, is_upgrade in (("reversed", False), ("repeated", True)):
            self.commit()
            self.start(step.revision.revision)
            impl.memo = {}  # see `attempt`
            yield self.marked(type(step)(self.script.revision_map, step.revision, is_upgrade), phase)
        impl.memo = memo

    def round_trip(self, revision):
        connection = self.context.connection
        within = connection.in_transaction()
        module = revision.module
        legs = [("reversed", module.downgrade), ("repeated", module.upgrade)]
        before = ["SAVEPOINT obyra_gate"]
        memo = self.context.impl.memo
        self.strict = True
        try:
            if may_be_guarded(revision.path):
                self.attempt("again", revision, module.upgrade, [*before, "SAVEPOINT obyra_gate_again"])
                before = ["ROLLBACK TO SAVEPOINT obyra_gate_again"]
            for phase, run in legs:
                if not self.attempt(phase, revision, run, before):
                    break
                before = []
        finally:
            self.strict = False
            self.context.impl.memo = memo
            # A revision that sent COMMIT or ROLLBACK by itself took the savepoint with it: then this is where it fails.
            self.phase = "reversed"
            self.execute("ROLLBACK TO SAVEPOINT obyra_gate")
            self.phase = "applied"
            if not within:
                self.begun.rollback()

    def attempt(self, phase, revision, run, before):
        """One leg; `before` are statements that lead to its start."""
        self.needs_commit, self.phase = False, phase
        # A command of its own, as a person would run it, knows nothing of the types that an earlier one made.
        self.context.impl.memo = {}
        self.driver.stage, self.driver.revision = "revision", revision.revision
        self.execute(*before, self.mark_of(phase, revision.revision))
        error = look = None
        self.began = time.monotonic()
        try:
            run(**self.arguments)
        except (Exception, SystemExit, NeedsCommit) as raised:
            error = raised
        seconds = time.monotonic() - self.began
        facts = {"failed": self.driver.describe(error) if error else None, "needs_commit": self.needs_commit}
        if not error and not self.needs_commit:
            look = self.look()
        self.channel.send(phase, revision=revision.revision, seconds=seconds, look=look, **facts)
        self.phase = "applied"
        return look is not None

    def refuse_commit(self):
        if self.strict:
            self.needs_commit = True
            raise NeedsCommit

    def committing(self, connection):
        """No hold: nothing needs to be converged on a server that is thrown away."""
        self.refuse_commit()
        autocommit = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        self.transaction["autocommit"] |= autocommit
        self.transaction["committed"] = True

    # -- the models ----------------------------------------------------------------------------

    def compare_models(self):
        """What Alembic's own comparison finds, with the filters that env.py configures. It leaves no trace."""
        metadata = self.context.opts.get("target_metadata")
        facts = {"differences": [], "checks": [], "enums": [], "place": self.driver.configured_at}
        if metadata is not None:
            connection = self.context.connection
            within = connection.in_transaction()
            self.execute("SAVEPOINT obyra_gate_models")
            try:
                facts.update(self.declared(metadata))
            except Exception as error:
                facts["failed"] = in_one_line(error)
            self.execute("ROLLBACK TO SAVEPOINT obyra_gate_models")
            if "failed" not in facts:
                facts["made"] = self.made(listed(metadata))
                self.execute("ROLLBACK TO SAVEPOINT obyra_gate_models")
            facts["places"] = self.class_places()
            if not within:
                self.begun.rollback()
        self.channel.send("models", compared=metadata is not None, **facts)

    def declared(self, metadata):
        from alembic.autogenerate import compare_metadata

        differences = [each for found in compare_metadata(self.context, metadata) for each in flattened(found)]
        tables = [table for each in listed(metadata) for table in each.tables.values()]
        return {
            "differences": [difference(each) for each in differences],
            "checks": [check for table in tables for check in declared_checks(table, self.context)],
            "enums": declared_enums(tables),
        }

    def made(self, metadatas):
        """What create_all makes of an empty database, events included, beside what the revisions made."""
        connection = self.context.connection
        self.strict = True
        try:
            self.execute("SELECT obyra_gate.aside()")
            for kind in types_made_elsewhere(metadatas):
                kind.create(connection, checkfirst=True)
            for metadata in metadatas:
                metadata.create_all(connection)
            (found,) = self.execute("SELECT obyra_gate.drift()::text")
            return {**json.loads(found), **self.compared_elsewhere(metadatas)}
        except (Exception, NeedsCommit) as error:
            return {"failed": in_one_line(error)}
        finally:
            self.strict = False

    def class_places(self):
        """Where the classes of the tables stand. SQLAlchemy tells nobody in public which classes there are."""
        places, files = {}, {}
        with contextlib.suppress(Exception):
            registries = sys.modules["sqlalchemy.orm.mapper"]._all_registries()
            for mapper in (mapper for registry in registries for mapper in registry.mappers):
                file = getattr(sys.modules.get(mapper.class_.__module__), "__file__", None) or ""
                if file not in files:
                    heads = ((CLASS.match(text), at) for at, text in enumerate(linecache.getlines(file), 1))
                    files[file] = {head[1]: at for head, at in heads if head}
                line = files[file].get(mapper.class_.__name__)
                if line and (place := self.driver.place(file, line)):
                    places.setdefault(mapper.local_table.name, place)
        return places

    def compared_elsewhere(self, metadatas):
        """What env.py leaves out, and the kinds that Alembic, as env.py configures it, compares itself."""
        include = self.context.opts.get("include_object") or (lambda *facts: True)
        excluded, kinds = [], []
        for table in (table for metadata in metadatas for table in metadata.tables.values()):
            if not include(table, table.name, "table", False, None):
                excluded.append(table.name)
            excluded += [index.name for index in table.indexes if not include(index, index.name, "index", False, None)]
        if self.context.opts.get("compare_server_default"):
            kinds.append("default")
        if "alembic_utils.replaceable_entity" in sys.modules:
            kinds += ["view", "materialized view", "function", "trigger", "policy"]
        return {"excluded": excluded, "elsewhere": kinds}


def listed(metadata):
    return metadata if isinstance(metadata, (list, tuple)) else [metadata]


def in_one_line(error):
    return "%s: %s" % (type(error).__name__, str(error).strip().partition("\n")[0])


def types_made_elsewhere(metadatas):
    """Types that the models use, and leave to the revisions."""
    columns = (column for metadata in metadatas for table in metadata.tables.values() for column in table.columns)
    kinds = (getattr(column.type, "item_type", column.type) for column in columns)
    return [kind for kind in kinds if getattr(kind, "create_type", True) is False]


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
    name = str(getattr(thing, "name", None) or columns_of(thing) or thing)
    if table is not None:
        name = "%s on %s" % (name, table.fullname)
    return {"kind": kind, "name": name, "detail": leads_to(thing)}


def columns_of(thing):
    """What a constraint without a name is known by."""
    try:
        return "(%s)" % ", ".join(getattr(column, "name", column) for column in thing.columns)
    except (AttributeError, TypeError):
        return ""


def leads_to(thing):
    """Where a foreign key leads, and what becomes of its rows."""
    elements = getattr(thing, "elements", None)
    if not elements:
        return ""
    words = ["-> " + ", ".join(element.target_fullname for element in elements)]
    words += ["ON %s %s" % (event.upper(), what) for event in ("delete", "update") if (what := getattr(thing, "on" + event, None))]
    return " ".join(words)


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
