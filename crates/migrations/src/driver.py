"""The Python half of `migrate`: Alembic's own API in one process, driven over two pipes.

Requests come in on stdin and events go out on stdout, one JSON object a line. The application
and its revisions get neither: their stdin is empty, and what they print goes to stderr. When
stdin ends, obyra-db is gone: this process ends at once, and the server rolls back.
"""

import contextlib
import importlib
import importlib.util
import inspect
import json
import linecache
import os
import queue
import re
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref


# What a statement of obyra-db's own begins with, and how much of the others is told.
OURS = "/* obyra-db */ "
STATEMENT_CHARS = 100_000
# Parameters of libpq that asyncpg refuses in a URL, and reads in libpq's variables, which say the same.
IN_VARIABLES = ("application_name", "connect_timeout", "sslcert", "sslkey", "sslmode", "sslrootcert", "target_session_attrs")
# Where an object lies in memory is different each time, and tells nobody anything.
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Aborted(Exception):
    """obyra-db refused to go on. Raised inside the migration's transaction, so that it rolls back."""


class Channel:
    """The two pipes, taken away from the application before any of its code runs."""

    def __init__(self):
        inbox = os.fdopen(os.dup(0), encoding="utf-8")
        self.outbox = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self.requests = queue.SimpleQueue()
        self.server = None
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        threading.Thread(target=self.read, args=(inbox,), daemon=True).start()

    def read(self, inbox):
        for line in inbox:
            self.requests.put(json.loads(line))
        if self.server:
            end_server(self.server)
        os._exit(0)

    def receive(self):
        return self.requests.get()

    def send(self, event, **facts):
        self.outbox.write(json.dumps({"event": event, **facts}, default=str) + "\n")
        self.outbox.flush()


class Driver:
    """Answers one request after another. `stage` and `revision` say where an exception came from."""

    def __init__(self, channel):
        self.channel = channel
        self.setup = channel.receive()
        self.root = os.getcwd() + os.sep
        self.scripts = os.path.join(self.setup["directory"], "")
        self.stage = "alembic"
        self.revision = None
        self.upgrade = None
        self.watching = False
        self.engines = weakref.WeakSet()
        self.statements_watched = False
        self.hidden = None
        self.application = None
        self.configured_at = None

    def answer(self, request):
        self.revision = self.upgrade = None
        try:
            self.stage = "alembic"
            importlib.import_module("alembic.command")
            getattr(self, "do_" + request["do"])(request)
        except BaseException as error:  # sys.exit() in a revision must not end in silence
            self.channel.send("failed", **self.describe(error))

    # -- requests ------------------------------------------------------------------------------

    def do_graph(self, request):
        """The revisions, from the bases to the heads. Loads them, but neither env.py nor, if it can, the application."""
        try:
            return self.read_graph()
        except RuntimeError as error:
            # A revision that needs the application: Flask-Migrate loads revisions within its context.
            needs_application = "application context" in str(error) and self.setup["app"]
            if not (needs_application and "DATABASE_URL" in os.environ):
                raise
        # Beyond the handler: what goes wrong now has nothing to do with that error.
        self.stage = "application"
        with self.load_application().app_context():
            self.read_graph()

    def read_graph(self):
        self.stage = "graph"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            script = self.script_directory(self.plain_configuration())
            revisions = [self.revision_facts(script, found) for found in script.walk_revisions()]
        said = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
        self.channel.send(
            "graph",
            heads=sorted(set(script.get_heads())),
            bases=sorted(set(script.get_bases())),
            revisions=revisions[::-1],
            # Alembic only warns of two files with one id, and then forgets about one of them.
            warnings=[each for each in said if each.startswith("Revision ")],
            imports_application=self.application_is_imported(),
        )

    def do_warmup(self, request):
        """What any connection needs, imported while the server starts. Nobody waits for an answer."""
        with contextlib.suppress(Exception):  # whoever needs it will say so
            importlib.import_module("sqlalchemy.dialects.postgresql")
            importlib.import_module(database_driver())

    def application_is_imported(self):
        """Whether a revision has imported code of the application, which may have read the environment by now."""
        files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
        return any(not file.startswith(self.scripts) and self.place(file, 1) for file in files)

    def do_current(self, request):
        """The revisions that the database stands at, seen through env.py as the application sees it."""
        seen = []

        def look(heads, context):
            seen.extend(heads)
            return []

        self.run_environment(lambda script: {"fn": look, "dont_mutate": True}, lambda context: None)
        self.channel.send("current", revisions=seen)

    def do_upgrade(self, request):
        self.upgrade = Upgrade(self, request["to"])
        self.run_environment(self.upgrade.options, self.upgrade.configured)
        self.channel.send("done", transaction=self.upgrade.transaction)

    def do_replay(self, request):
        """An upgrade on a throw-away server, whose revisions also go down and up again."""
        self.watch_statements()
        self.upgrade = Replay(self, request)
        self.run_environment(self.upgrade.options, self.upgrade.configured)
        self.channel.send("done", transaction=self.upgrade.transaction)

    def do_downgrade(self, request):
        self.upgrade = Downgrade(self, request["to"])
        self.run_environment(self.upgrade.options, self.upgrade.configured)
        self.channel.send("done", transaction=self.upgrade.transaction)

    def do_stamp(self, request):
        self.upgrade = Stamp(self, request["to"])
        self.run_environment(self.upgrade.options, self.upgrade.configured)
        self.channel.send("done", transaction=self.upgrade.transaction)

    def do_create(self, request):
        """The tables of the models, as `create_all` makes them."""
        self.upgrade = Creation(self)
        self.run_environment(self.upgrade.options, self.upgrade.configured)
        self.channel.send("done", transaction=self.upgrade.transaction)

    def do_run(self, request):
        """A file of the application's, within its context."""
        self.stage = "application"
        application = self.load_application()
        with application.app_context() if application else contextlib.nullcontext():
            run_file(self.root, request["file"], request["function"])
        self.channel.send("ran")

    def do_connect(self, request):
        """Another database from now on. Whoever connected before connects anew."""
        for engine in list(self.engines):
            engine.dispose()
        self.channel.server = request["server"]
        os.environ.update(request["environment"])
        choose_database_driver()
        self.channel.send("connected")

    # -- Alembic and the application -----------------------------------------------------------

    def run_environment(self, options_for, configured):
        """Runs env.py, and calls `configured` as soon as it has handed its connection to Alembic."""
        from alembic.runtime.environment import EnvironmentContext

        if not self.watching:
            self.watching = True
            self.watch_connections()
        self.stage = "application"
        application = self.load_application()
        with application.app_context() if application else contextlib.nullcontext():
            config = self.configuration(application)
            self.stage = "graph"
            script = self.script_directory(config)
            options = options_for(script)
            if self.setup["version_table_schema"]:
                options["version_table_schema"] = self.setup["version_table_schema"]
            self.stage = "environment"
            with EnvironmentContext(config, script, **options) as environment:
                configure = environment.configure

                def configure_and_tell(*arguments, **options):
                    self.configured_at = self.caller((self.scripts,))
                    configure(*arguments, **options)
                    configured(environment.get_context())

                environment.configure = configure_and_tell  # no subclass: Alembic's proxy knows only its own
                script.run_env()

    def load_application(self):
        if not self.setup["app"] or self.application:
            return self.application
        from flask import cli

        cli.load_dotenv()  # as the flask command does; it never replaces a variable that is set
        application = cli.ScriptInfo(self.setup["app"]).load_app()
        group = application.cli.commands.get("db")
        if group is not None and "upgrade" not in getattr(group, "commands", ()):
            self.hidden_group(group)
        self.application = application
        return application

    def hidden_group(self, group):
        """The application's own group `db` comes before the one that Flask-Migrate registers."""
        functions = [group.callback, *(command.callback for command in getattr(group, "commands", {}).values())]
        functions = [inspect.unwrap(function) for function in functions if function]
        codes = [function.__code__ for function in functions if hasattr(function, "__code__")]
        places = (self.place(code.co_filename, code.co_firstlineno) for code in codes)
        self.hidden = {"place": next(filter(None, places), None)}

    def configuration(self, application):
        if application and "migrate" in application.extensions:
            return application.extensions["migrate"].migrate.get_config(self.setup["directory"])
        config = self.plain_configuration()
        config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"].replace("%", "%%"))
        return config

    def plain_configuration(self):
        from alembic.config import Config

        config = Config(self.setup["config"])
        config.toml_file_name = self.setup["pyproject"]  # which Alembic reads from 1.16 on
        config.set_main_option("script_location", self.setup["directory"].replace("%", "%%"))
        return config

    def script_directory(self, config):
        from alembic.script import ScriptDirectory

        if self.setup["versions"]:
            config.set_main_option("version_locations", self.setup["versions"].replace("%", "%%"))
            for name in ("path_separator", "version_path_separator"):  # as Alembic calls it now, and before 1.16
                config.set_main_option(name, "os")
        return ScriptDirectory.from_config(config)

    def revision_facts(self, script, found):
        from alembic.util import to_tuple

        needed = [each.revision for name in to_tuple(found.dependencies, ()) for each in script.get_revisions(name)]
        return {
            "id": found.revision,
            "down": list(to_tuple(found.down_revision, ())) + needed,
            "doc": (found.doc or "").partition("\n")[0],
            "file": found.path,
        }

    def watch_connections(self):
        """Every connection gets the session's limits, knows where it leads, and who began its transaction."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.pool import Pool

        @event.listens_for(Pool, "connect")
        def limit(connection, record):
            if type(connection).__module__.startswith("sqlite3"):
                return
            cursor = connection.cursor()
            for statement in self.setup["session"]:
                cursor.execute(statement)
            cursor.execute(self.setup["identity"])
            record.info["obyra_identity"] = list(cursor.fetchone())
            cursor.close()
            connection.commit()

        @event.listens_for(Engine, "begin")
        def remember(connection):
            connection.info["obyra_began_at"] = self.caller((self.root, self.scripts))

        @event.listens_for(Engine, "engine_connect")
        def keep(connection, *branch):  # before SQLAlchemy 2.0 there is a second one
            self.engines.add(connection.engine)

    def watch_statements(self):
        """Each statement is told with its line, before it runs; and the network is closed to revisions."""
        if self.statements_watched:
            return
        self.statements_watched = True
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        @event.listens_for(Engine, "before_cursor_execute")
        def tell(connection, cursor, statement, parameters, context, executemany):
            if not statement.startswith(OURS):
                place = self.caller((self.scripts, self.root))
                self.channel.send("statement", sql=statement[:STATEMENT_CHARS], revision=self.revision, place=place)

        def close_network(name, arguments):
            if self.stage != "revision" or name not in ("socket.connect", "socket.getaddrinfo"):
                return
            address = arguments[1] if name == "socket.connect" else arguments[0]
            if not (isinstance(address, str) and address.startswith("/")):  # a socket of this machine
                place = self.caller((self.scripts, self.root))
                self.channel.send("network", address=str(address), revision=self.revision, place=place)
                raise OSError("a revision on the gate's server has no network: %s" % (address,))

        sys.addaudithook(close_network)
        self.watch_upgrades()

    def watch_upgrades(self):
        """Alembic's own command is nothing that this program uses: whoever calls it migrates while it is loaded."""
        from alembic import command

        upgrade = command.upgrade

        def upgrade_and_tell(*arguments, **options):
            self.channel.send("boot-upgrade", place=self.caller((self.root,)))
            return upgrade(*arguments, **options)

        command.upgrade = upgrade_and_tell

    def caller(self, folders):
        """The innermost frame of the application, in the first of the folders that any is in."""
        frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_stack(None)]
        for folder in folders:
            for file, line in frames:
                if file.startswith(folder) and self.place(file, line):
                    return self.place(file, line)
        return None

    # -- what went wrong, and where ------------------------------------------------------------

    def place(self, file, line):
        """The place, if the file is the application's own."""
        if not os.path.isabs(file):
            return None
        own = file.startswith((self.root, self.scripts)) and "-packages" + os.sep not in file
        return {"file": file, "line": line} if own else None

    def describe(self, error):
        chain = [error]
        while chain[-1].__cause__ or chain[-1].__context__:
            chain.append(chain[-1].__cause__ or chain[-1].__context__)
        culprit, place = self.locate(chain)
        facts = {
            "stage": self.stage,
            "revision": self.revision,
            "phase": getattr(self.upgrade, "phase", None),
            "kind": type(culprit).__name__,
            "place": place,
            "transaction": self.upgrade and self.upgrade.transaction,
        }
        database = next((each for each in chain if hasattr(each, "orig") or hasattr(each, "diag")), None)
        if database is not None:
            return {**facts, **database_error(database)}
        message = "sys.exit(%r)" % culprit.code if isinstance(culprit, SystemExit) else str(culprit).strip()
        return {**facts, "message": ADDRESS.sub("", message)}

    def locate(self, chain):
        """The innermost frame in the migrations folder, else in the application's code."""
        for folder in (self.scripts, self.root):
            for error in chain:
                frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
                if isinstance(error, SyntaxError) and error.filename:
                    frames.append((error.filename, error.lineno))
                for file, line in reversed(frames):
                    if file.startswith(folder) and self.place(file, line):
                        return error, self.place(file, line)
        return chain[0], None


class Upgrade:
    """One upgrade. At each hold, obyra-db may run SQL on the migration's own connection."""

    def __init__(self, driver, to):
        self.driver = driver
        self.channel = driver.channel
        self.to = to
        self.script = None
        self.began = 0.0
        self.transaction = {
            "external": False,  # begun before context.configure(), so that Alembic never commits it
            "began_at": None,
            "per_migration": False,
            "autocommit": False,  # some statements ran outside of it
            "committed": False,  # the last thing that happened to it was COMMIT
        }

    def options(self, script):
        self.script = script
        return {"fn": self.steps, "destination_rev": self.to}

    def configured(self, context):
        """Nothing has run on the connection yet, and nothing may: it would begin a transaction."""
        from sqlalchemy import event

        connection = context.connection
        self.transaction.update(
            external=context._in_external_transaction,
            began_at=connection.info.get("obyra_began_at"),
            per_migration=context._transaction_per_migration,
        )
        self.hold(connection, "configured", identity=connection.info.get("obyra_identity"))
        event.listen(connection, "commit", self.committing)
        context.on_version_apply_callbacks = (*context.on_version_apply_callbacks, self.applied)

    def steps(self, heads, context):
        """Alembic's `fn`. The version row is written, and `applied` called, between two of its yields."""
        for step in self.plan(heads, context):
            self.driver.stage, self.driver.revision = "revision", step.revision.revision
            self.channel.send("begin", revision=step.revision.revision)
            self.began = time.monotonic()
            yield step
        self.driver.stage, self.driver.revision = "environment", None

    def way(self, heads):
        return list(self.script._upgrade_revs(self.to, heads))

    def plan(self, heads, context):
        steps = self.way(heads)
        self.hold(
            context.connection,
            "planned",
            current=list(heads),
            revisions=[step.revision.revision for step in steps],
            version_table=context.version_table,
            version_table_schema=context.version_table_schema,
            per_migration=context._transaction_per_migration,
            **self.more_about(steps),
        )
        return steps

    def more_about(self, steps):
        return {}

    def applied(self, ctx, step, heads, run_args):
        seconds = time.monotonic() - self.began
        self.transaction["committed"] = False
        self.hold(ctx.connection, "applied", revision=step.up_revision_id, seconds=seconds)

    def committing(self, connection):
        """SQLAlchemy is about to send COMMIT, whoever asked for it."""
        autocommit = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        self.transaction["autocommit"] |= autocommit
        self.hold(connection, "committing", autocommit=autocommit)
        self.transaction["committed"] = True

    def hold(self, connection, event, **facts):
        held = time.monotonic()
        self.channel.send(event, **facts)
        while "run" in (request := self.channel.receive()):
            self.run(connection, request)
        self.began += time.monotonic() - held  # what obyra-db does is not the revision's time
        if "abort" in request:
            self.driver.stage = "aborted"
            raise Aborted(request["abort"])

    def run(self, connection, request):
        rows, done = [], 0
        try:
            for done, statement in enumerate(request["run"]):
                result = execute_as_it_is(connection, OURS + statement)
                rows = [list(row) for row in result] if result.returns_rows else []
        except Exception as error:
            self.channel.send("sql-failed", statement=done, **database_error(error))
        else:
            self.channel.send("rows", rows=rows)


def execute_as_it_is(connection, statement):
    """Without parameters, so that no driver takes a percent sign for a placeholder."""
    options = {"no_parameters": True}
    if hasattr(connection, "exec_driver_sql"):
        return connection.exec_driver_sql(statement, execution_options=options)
    return connection.execution_options(**options).execute(statement)  # SQLAlchemy 1.3


def database_error(error):
    """What the server said, whichever driver brought it."""
    original = getattr(error, "orig", None) or error
    said = getattr(original, "diag", None)
    return {
        "message": getattr(said, "message_primary", None) or str(original).strip(),
        "detail": getattr(said, "message_detail", None),
        "hint": getattr(said, "message_hint", None),
        "sqlstate": getattr(original, "sqlstate", None) or getattr(original, "pgcode", None),
        "disconnected": bool(getattr(error, "connection_invalidated", False)),
    }


def choose_database_driver():
    """DATABASE_URL names psycopg 3, which is not every application's."""
    if "DATABASE_URL" not in os.environ:
        return
    url, _, parameters = os.environ["DATABASE_URL"].replace("+psycopg:", "+%s:" % database_driver(), 1).partition("?")
    if importlib.util.find_spec("asyncpg"):
        parameters = "&".join(each for each in parameters.split("&") if each.partition("=")[0] not in IN_VARIABLES)
    os.environ["DATABASE_URL"] = "?".join(filter(None, (url, parameters)))


def database_driver():
    """psycopg 3; another one for an application without it, or with a SQLAlchemy that does not know it."""
    if importlib.util.find_spec("psycopg") and sqlalchemy_major() >= 2:
        return "psycopg"
    return next((name for name in ("psycopg2", "asyncpg") if importlib.util.find_spec(name)), "psycopg")


def sqlalchemy_major():
    from importlib import metadata

    try:
        return int(metadata.version("sqlalchemy").partition(".")[0])
    except (metadata.PackageNotFoundError, ValueError):
        return 2


def end_server(data):
    """obyra-db was killed, and can no longer end its throw-away server."""
    with contextlib.suppress(OSError, ValueError):
        with open(os.path.join(data, "postmaster.pid")) as file:
            os.kill(int(file.readline()), signal.SIGQUIT)


def main():
    choose_database_driver()
    driver = Driver(Channel())
    while True:
        driver.answer(driver.channel.receive())
