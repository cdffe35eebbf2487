//! The proof by running: on a throw-away server, with the schema at Alembic's head, every statement runs
//! twice, each in its own transaction. The second time nothing may fail and nothing may change; its locks are
//! told.

mod ready;

use std::collections::BTreeSet;
use std::time::Duration;

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::tokio_postgres::Error;
use obyra_postgres::{Conninfo, Limits, Result, Session, sql_failure};

use self::ready::Ready;
use super::check::Bench;
use super::errors;
use super::form::Manner;
use super::prove::{Guard, Proof};
use super::tokens::HOLE;
use super::{Site, Statement};
use crate::driver::Look;
use crate::gate::catalogue::{Catalogue, Change};

/// What running a helper twice showed.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// One for each statement; none at all where there was nothing to run them on.
    pub runs: Vec<Twice>,
    pub stands: Stands,
}

/// What the database was before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Stands {
    /// Empty: there are no migrations.
    #[default]
    Empty,
    /// At Alembic's head.
    Head(String),
    /// As a dump has it.
    Dump,
    /// The head could not be reached, so that nothing was run; why.
    Unreached(String),
}

/// A statement that ran twice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Twice {
    pub first: Pass,
    pub second: Pass,
}

/// How a statement ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pass {
    Ran(Ran),
    /// What is asked before it said no.
    Skipped,
    /// It cannot be run here.
    Left,
    Refused(Refusal),
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// None if the connection was lost.
    pub sqlstate: Option<String>,
    pub message: String,
}

impl Refusal {
    /// `statement_timeout` ended it.
    pub fn timed_out(&self) -> bool {
        self.sqlstate.as_deref() == Some("57014")
    }

    pub fn is_syntax(&self) -> bool {
        self.sqlstate.as_deref() == Some(errors::SYNTAX_ERROR)
    }
}

/// What a statement did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ran {
    /// What is different in the catalogue.
    pub changes: Vec<Change>,
    /// Tables that were dropped and made again.
    pub remade: bool,
    /// Rows that were inserted or deleted.
    pub rows: i64,
    /// Rows that were updated.
    pub updates: i64,
    /// Locks that others notice, with the table: `ACCESS EXCLUSIVE`, `app.users`.
    pub locks: Vec<(String, String)>,
}

impl Ran {
    pub fn did_something(&self) -> bool {
        !self.changes.is_empty() || self.remade || self.rows + self.updates > 0
    }
}

/// Prepares a database, and runs statements twice on it.
pub(super) async fn run(
    bench: &Bench<'_>,
    site: &mut impl Site,
    read: (&[Statement], &[Proof]),
    progress: &dyn Progress,
) -> Result<Trial> {
    let (ready, stands) = Ready::make(bench, site, progress).await?;
    if matches!(stands, Stands::Unreached(_)) {
        return Ok(Trial { runs: Vec::new(), stands });
    }
    let runs = twice(&ready.database.runner, bench.patience, read, progress).await?;
    Ok(Trial { runs, stands })
}

/// Runs statements twice.
pub(super) async fn twice(
    runner: &Conninfo,
    patience: Duration,
    (statements, proofs): (&[Statement], &[Proof]),
    progress: &dyn Progress,
) -> Result<Vec<Twice>> {
    progress.begin(text::runtime::RUNNING_TWICE.message(), Some(2 * statements.len() as u64));
    let mut room = Room::enter(runner, patience).await?;
    let mut firsts = Vec::with_capacity(statements.len());
    for (statement, proof) in statements.iter().zip(proofs) {
        firsts.push(room.pass(statement, proof).await?);
        progress.advance(1);
    }
    let mut runs = Vec::with_capacity(statements.len());
    for ((statement, proof), first) in statements.iter().zip(proofs).zip(firsts) {
        let mut second = room.pass(statement, proof).await?;
        // What was asked for never came: whether it is SQL at all, the server can still say.
        if (&first, &second) == (&Pass::Skipped, &Pass::Skipped)
            && let Some(refusal) = room.syntax(statement, proof).await?
        {
            second = Pass::Refused(refusal);
        }
        runs.push(Twice { first, second });
        progress.advance(1);
    }
    progress.done();
    Ok(runs)
}

/// A session of the role that the statements run as.
struct Room {
    runner: Conninfo,
    limits: Limits,
    session: Session,
    now: Catalogue,
    /// The oids of the relations.
    relations: BTreeSet<i64>,
}

/// The locks that others notice, the rows that the transaction wrote, and what changed in the catalogue.
const MEASURE: &str = "
    SELECT obyra_gate.look(false)::text,
           (SELECT ARRAY[coalesce(sum(n_tup_ins + n_tup_del), 0), coalesce(sum(n_tup_upd), 0)]::bigint[]
              FROM pg_catalog.pg_stat_xact_user_tables WHERE schemaname <> 'obyra_gate'),
           coalesce(nullif(current_setting('obyra_gate.rows', true), ''), '{0,0}')::bigint[],
           (SELECT coalesce(array_agg(DISTINCT l.mode || ' ' || format('%I.%I', n.nspname, c.relname)), '{}')
              FROM pg_catalog.pg_locks l
              JOIN pg_catalog.pg_class c ON c.oid = l.relation
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
               AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
               AND c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_'
               AND n.nspname NOT IN ('information_schema', 'obyra_gate'))";
/// A transaction whose commands the event triggers of the gate tell of. The counters of rows still hold what earlier
/// transactions wrote and the server has not collected yet.
const BEGIN: &str = "BEGIN; SET LOCAL obyra_gate.watch = 'full';
    SELECT set_config('obyra_gate.rows',
             ARRAY[coalesce(sum(n_tup_ins + n_tup_del), 0), coalesce(sum(n_tup_upd), 0)]::text, true)
      FROM pg_catalog.pg_stat_xact_user_tables WHERE schemaname <> 'obyra_gate'";
/// A block that ends its transaction, within one.
const INVALID_TERMINATION: &str = "2D000";

impl Room {
    async fn enter(runner: &Conninfo, patience: Duration) -> Result<Room> {
        let limits = Limits { statement_timeout: Some(patience), ..Limits::default() };
        let session = Session::connect(runner, limits).await?;
        let (now, relations) = (Catalogue::default(), BTreeSet::new());
        let mut room = Room { runner: runner.clone(), limits, session, now, relations };
        let row = room.session.query_one("SELECT obyra_gate.look(true)::text", &[]).await;
        let row = row.map_err(|error| unmeasured(&error))?;
        room.update(look(row.get(0))?);
        Ok(room)
    }

    async fn pass(&mut self, statement: &Statement, proof: &Proof) -> Result<Pass> {
        if statement.sql.contains(HOLE) || proof.manner == Manner::Fed {
            return Ok(Pass::Left);
        }
        if !self.holds(&statement.when).await {
            return Ok(Pass::Skipped);
        }
        let outcome = match proof.manner {
            Manner::Query | Manner::TransactionControl | Manner::Fed => return Ok(Pass::Left),
            Manner::Session => {
                self.session.batch_execute(&lasting(&statement.sql)).await.map(|()| Ran::default())
            }
            Manner::Autonomous => self.outside(&statement.sql).await,
            Manner::Transactional | Manner::Block => self.inside(&statement.sql).await,
        };
        match outcome {
            Ok(ran) => Ok(Pass::Ran(ran)),
            Err(error) => {
                let refusal = refusal(&error);
                // Outside of a transaction this is a warning, and on a lost connection nothing.
                let _ = self.session.batch_execute("ROLLBACK").await;
                self.stay_connected().await?;
                if refusal.sqlstate.as_deref() == Some(INVALID_TERMINATION) {
                    return Ok(self
                        .outside(&statement.sql)
                        .await
                        .map_or_else(|e| Pass::Refused(self::refusal(&e)), Pass::Ran));
                }
                Ok(Pass::Refused(refusal))
            }
        }
    }

    async fn inside(&mut self, sql: &str) -> std::result::Result<Ran, Error> {
        self.session.batch_execute(BEGIN).await?;
        self.session.simple_query(sql).await?;
        let measured = self.session.query_one(MEASURE, &[]).await?;
        self.session.batch_execute("COMMIT").await?;
        let (now, before): (Vec<i64>, Vec<i64>) = (measured.get(1), measured.get(2));
        let since = |at: usize| now.get(at).zip(before.get(at)).map_or(0, |(now, before)| now - before);
        let locks: Vec<String> = measured.get(3);
        let ran = self.ran(measured.get(0), &locks);
        Ok(Ran { rows: since(0), updates: since(1), ..ran })
    }

    /// What takes no transaction is seen afterwards; its locks are gone by then.
    async fn outside(&mut self, sql: &str) -> std::result::Result<Ran, Error> {
        self.session.batch_execute("SET obyra_gate.watch = 'full'").await?;
        self.session.simple_query(sql).await?;
        let measured = self.session.query_one("SELECT obyra_gate.look(true)::text", &[]).await?;
        Ok(self.ran(measured.get(0), &[]))
    }

    fn ran(&mut self, seen: &str, locks: &[String]) -> Ran {
        let (before, relations) = (self.now.clone(), self.relations.clone());
        if let Ok(look) = look(seen) {
            self.update(look);
        }
        let changes = self.now.changes_since(&before);
        let remade = changes.is_empty() && relations != self.relations;
        let locks = locks
            .iter()
            .filter_map(|lock| lock.split_once(' '))
            .map(|(mode, table)| (mode_name(mode).to_owned(), table.to_owned()));
        Ran { changes, remade, locks: locks.collect(), ..Ran::default() }
    }

    fn update(&mut self, look: Look) {
        if look.everything {
            self.relations.clear();
        }
        self.relations.retain(|relation| !look.looked_at.contains(relation));
        self.relations.extend(look.rows.iter().map(|(relation, ..)| *relation).filter(|oid| *oid != 0));
        self.now.update(look);
    }

    /// Whether what is asked before a statement says yes. What no server can answer counts as yes.
    async fn holds(&self, when: &[Guard]) -> bool {
        for part in when.iter().flat_map(|guard| guard.condition.parts()) {
            let Some(sql) = part.sql() else { continue };
            let answer = self.session.query_one(&format!("SELECT ({sql})::boolean"), &[]).await;
            if matches!(answer.map(|row| row.try_get::<_, Option<bool>>(0)), Ok(Ok(Some(false) | None))) {
                return false;
            }
        }
        true
    }

    /// What the server's parser says of a statement that is not run: PL/pgSQL parses what it never reaches.
    async fn syntax(&mut self, statement: &Statement, proof: &Proof) -> Result<Option<Refusal>> {
        let body = match proof.manner {
            Manner::Transactional => format!("BEGIN RETURN; {}; END", statement.sql),
            Manner::Block => {
                let tokens = super::tokens::tokens(&statement.sql);
                tokens.iter().find_map(super::tokens::Token::literal).unwrap_or_default()
            }
            _ => return Ok(None),
        };
        let create = format!(
            "{BEGIN}; CREATE FUNCTION pg_temp.obyra_parsed() RETURNS void LANGUAGE plpgsql AS {}; ROLLBACK",
            obyra_postgres::quote::literal(&body)
        );
        let Err(error) = self.session.batch_execute(&create).await else { return Ok(None) };
        let _ = self.session.batch_execute("ROLLBACK").await;
        self.stay_connected().await?;
        Ok(Some(refusal(&error)).filter(Refusal::is_syntax))
    }

    /// A statement may end its own connection.
    async fn stay_connected(&mut self) -> Result<()> {
        if self.session.is_closed() {
            self.session = Session::connect(&self.runner, self.limits).await?;
        }
        Ok(())
    }
}

/// `SET LOCAL` would be over with the transaction of its own that it has here.
fn lasting(sql: &str) -> String {
    let tokens = super::tokens::tokens(sql);
    match tokens.as_slice() {
        [set, local, ..] if set.is("set") && local.is("local") => format!("SET {}", &sql[local.end()..]),
        _ => sql.to_owned(),
    }
}

fn look(json: &str) -> Result<Look> {
    serde_json::from_str(json).map_err(|error| Failure::new(text::runtime::UNMEASURED).because(error))
}

fn unmeasured(error: &Error) -> Failure {
    sql_failure(text::runtime::UNMEASURED.message(), error)
}

fn refusal(error: &Error) -> Refusal {
    match error.as_db_error() {
        Some(said) => {
            Refusal { sqlstate: Some(said.code().code().to_owned()), message: said.message().to_owned() }
        }
        None => Refusal { sqlstate: None, message: error.to_string() },
    }
}

/// As SQL writes it.
fn mode_name(mode: &str) -> &str {
    match mode {
        "ShareLock" => "SHARE",
        "ShareRowExclusiveLock" => "SHARE ROW EXCLUSIVE",
        "ExclusiveLock" => "EXCLUSIVE",
        "AccessExclusiveLock" => "ACCESS EXCLUSIVE",
        other => other,
    }
}
