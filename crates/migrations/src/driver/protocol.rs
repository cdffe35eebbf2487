//! What `driver.py` and this crate say to each other: one JSON object a line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The first line: what stays the same for the whole life of the driver.
#[derive(Debug, Serialize)]
pub(crate) struct Setup {
    pub directory: PathBuf,
    pub config: Option<PathBuf>,
    pub pyproject: Option<PathBuf>,
    pub app: Option<String>,
    pub version_table_schema: Option<String>,
    /// The one folder of revisions, where it is not the project's own.
    pub versions: Option<PathBuf>,
    /// Statements that each new connection starts with.
    pub session: Vec<String>,
    /// The query that says where a connection leads.
    pub identity: &'static str,
}

/// What is asked of the driver.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(crate) enum Request<'a> {
    Graph,
    Warmup,
    Current,
    Upgrade {
        to: &'a str,
    },
    Downgrade {
        to: &'a str,
    },
    Stamp {
        to: &'a str,
    },
    Create,
    Run {
        file: &'a Path,
        function: Option<&'a str>,
    },
    Replay(&'a Replay),
    /// `server` is the data folder of a throw-away server, which must not outlive this program.
    Connect {
        environment: BTreeMap<String, String>,
        server: &'a Path,
    },
}

/// An upgrade on a throw-away server, whose revisions also go down and up again.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Replay {
    /// The revision to reach.
    pub to: String,
    /// The revisions whose statements are measured.
    pub checked: BTreeSet<String>,
    /// The revisions that go down and up again.
    pub trips: BTreeSet<String>,
    /// The revisions before which a transaction of several revisions is committed.
    pub separate: BTreeSet<String>,
    /// Down and up are committed; else they are taken back.
    pub committed: bool,
    /// The models are compared at the end.
    pub models: bool,
}

/// What a driver that holds the migration is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer<'a> {
    Run(&'a [String]),
    Continue(bool),
    Abort(&'a str),
}

/// What the driver says.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    Graph(Graph),
    Current {
        revisions: Vec<String>,
    },
    Configured {
        identity: Option<Vec<Value>>,
    },
    Planned(Planned),
    Begin {
        revision: String,
    },
    Applied(Applied),
    Committing {
        autocommit: bool,
    },
    Rows {
        rows: Vec<Vec<Value>>,
    },
    SqlFailed {
        statement: usize,
        #[serde(flatten)]
        said: Said,
    },
    Done {
        transaction: Transaction,
    },
    Failed(Complaint),
    Connected,
    Ran,
    Statement(Statement),
    Wrote(Wrote),
    Network(Network),
    HiddenGroup {
        place: Option<Line>,
    },
    BootUpgrade {
        place: Option<Line>,
    },
    Passed(Passed),
    Again(Trip),
    Reversed(Trip),
    Repeated(Trip),
    Models(Models),
}

/// A statement that is about to be sent, by whichever connection.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Statement {
    /// Its text; the end of a long one is cut off.
    pub sql: String,
    /// The revision that runs.
    pub revision: Option<String>,
    /// The application's line that sends it.
    pub place: Option<Line>,
}

/// A statement that changed no catalogue has locked tables, or written to tables that it read whole.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Wrote {
    /// Its text.
    pub sql: String,
    /// The revision that runs.
    pub revision: String,
    /// The application's line that sent it.
    pub place: Option<Line>,
    /// What it did to each table: its oid, its name, the lock that others notice, whether it was read whole and written.
    pub tables: Vec<(i64, String, Option<String>, bool)>,
}

/// A revision tried to call another machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// Which.
    pub address: String,
    /// The revision.
    pub revision: Option<String>,
    /// The line that tried.
    pub place: Option<Line>,
}

/// Which part of a round trip has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The upgrade, a second time without a downgrade.
    Again,
    /// The downgrade.
    Reversed,
    /// The upgrade after the downgrade.
    Repeated,
}

/// A part of a round trip has run; the replay goes on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Trip {
    /// The revision.
    pub revision: String,
    /// How long its own code took.
    pub seconds: f64,
    /// What changed, if it ran.
    #[serde(default)]
    pub look: Option<Look>,
    /// What it raised.
    #[serde(default)]
    pub failed: Option<Complaint>,
    /// It wanted to commit, so that only a round trip that is committed says anything.
    #[serde(default)]
    pub needs_commit: bool,
}

/// The models beside the schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Models {
    /// Whether `env.py` gives any.
    pub compared: bool,
    /// Where it calls `context.configure()`.
    #[serde(default)]
    pub place: Option<Line>,
    /// Where the classes of the tables stand, by the table's name.
    #[serde(default)]
    pub places: BTreeMap<String, Line>,
    /// Why they could not be compared.
    #[serde(default)]
    pub failed: Option<String>,
    /// What Alembic's own comparison finds.
    pub differences: Vec<Difference>,
    /// The CHECK constraints that the models declare.
    pub checks: Vec<DeclaredCheck>,
    /// The enumerations that the models declare.
    pub enums: Vec<DeclaredEnum>,
    /// What `create_all` makes, beside what the revisions made.
    #[serde(default)]
    pub made: Option<Made>,
}

/// What `create_all` makes of an empty database, events included, beside what the revisions made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Made {
    /// Why it made nothing.
    pub failed: Option<String>,
    /// What differs: the kind, the name, the definition in the schema, the definition as the models have it.
    pub rows: Vec<(String, String, Option<String>, Option<String>)>,
    /// The kinds of which the models have any.
    pub kinds: BTreeSet<String>,
    /// Tables and indexes that `env.py` leaves out.
    pub excluded: BTreeSet<String>,
    /// The kinds that Alembic, as `env.py` configures it, compares itself.
    pub elsewhere: BTreeSet<String>,
}

/// What Alembic's comparison finds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Difference {
    /// `add_table`, `remove_column`, `modify_nullable`, … : what would make the schema follow the models.
    pub kind: String,
    /// What it is about.
    pub name: String,
    /// More of it.
    pub detail: String,
}

/// A CHECK constraint of a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DeclaredCheck {
    /// The schema, where the model names one.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// The constraint.
    pub name: String,
    /// Its condition.
    pub sql: String,
}

/// An enumeration of the models.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DeclaredEnum {
    /// The schema, where the model names one.
    pub schema: Option<String>,
    /// The type.
    pub name: String,
    /// Its values, in their order.
    pub labels: Vec<String>,
}

/// The revisions as Alembic reads them, from the bases to the heads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// The revisions that nothing follows.
    pub heads: Vec<String>,
    /// The revisions that follow nothing.
    pub bases: Vec<String>,
    /// All of them, each after those that it follows.
    pub revisions: Vec<Revision>,
    /// What Alembic merely warns of: two files with one identifier.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// A revision imports code of the application, which has run by now.
    #[serde(default)]
    pub imports_application: bool,
}

/// One revision file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its identifier.
    pub id: String,
    /// The revisions that it follows or depends on.
    pub down: Vec<String>,
    /// The first line of its docstring.
    pub doc: String,
    /// Its file.
    pub file: PathBuf,
}

/// Alembic is connected and knows what it will run; nothing has run yet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Planned {
    /// The revisions that the database stands at.
    pub current: Vec<String>,
    /// The revisions that will be applied, in their order.
    pub revisions: Vec<String>,
    /// The version table's name as `env.py` configured it.
    pub version_table: String,
    /// Its schema, if `env.py` or the policy names one.
    pub version_table_schema: Option<String>,
    /// Each revision has a transaction of its own.
    pub per_migration: bool,
    /// The catalogue before the first revision, if that is checked by the gate.
    #[serde(default)]
    pub look: Option<Look>,
}

/// What changed in the catalogue since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Look {
    /// The oids of relations, and of parts of relations that were dropped, that may have changed.
    pub looked_at: Vec<i64>,
    /// Whether what is part of no relation was looked at.
    pub other: bool,
    /// Whether all was looked at.
    #[serde(default)]
    pub everything: bool,
    /// For each object the relation that it belongs to, its own oid, its name and its definition.
    pub rows: Vec<(i64, Option<i64>, String, String)>,
}

/// A revision has run in a replay, which goes on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Passed {
    /// The revision.
    pub revision: String,
    /// How long its own code took.
    pub seconds: f64,
    /// What changed, if it or the next one is checked.
    pub look: Option<Look>,
}

/// A revision has run and the version table names it; the transaction is still open.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Applied {
    /// The revision.
    pub revision: String,
    /// How long its own code took.
    pub seconds: f64,
}

/// How the transaction of the migration came to be, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Transaction {
    /// It had begun before `context.configure()`, so that Alembic leaves it to whoever began it.
    pub external: bool,
    /// The line of the application that began it.
    pub began_at: Option<Line>,
    /// Each revision has a transaction of its own.
    pub per_migration: bool,
    /// Some statements ran outside of any transaction (`autocommit_block`).
    pub autocommit: bool,
    /// The last thing that happened to it was COMMIT.
    pub committed: bool,
}

/// A line of the application's code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Line {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// What the database said, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Said {
    /// The message.
    pub message: String,
    /// Its detail.
    #[serde(default)]
    pub detail: Option<String>,
    /// Its hint.
    #[serde(default)]
    pub hint: Option<String>,
    /// The code of the error, when the database spoke at all.
    #[serde(default)]
    pub sqlstate: Option<String>,
    /// The connection is gone.
    #[serde(default)]
    pub disconnected: bool,
}

/// Where the driver was when an exception ended the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Importing Alembic.
    Alembic,
    /// Reading the revisions.
    Graph,
    /// Loading the application.
    Application,
    /// In `env.py`: connecting, configuring, committing.
    Environment,
    /// In a revision.
    Revision,
    /// obyra-db itself refused to go on.
    Aborted,
}

/// An exception that ended the request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Complaint {
    /// Where the driver was.
    pub stage: Stage,
    /// The revision that was running.
    pub revision: Option<String>,
    /// `applied`, or the part of a round trip.
    #[serde(default)]
    pub phase: Option<String>,
    /// The exception's class.
    pub kind: String,
    /// The innermost line of the revisions, else of the application, that it passed through.
    pub place: Option<Line>,
    /// The transaction, if an upgrade was under way.
    pub transaction: Option<Transaction>,
    /// What the exception or the database said.
    #[serde(flatten)]
    pub said: Said,
}
