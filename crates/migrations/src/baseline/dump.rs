//! pg_dump of a schema: read only by its nature, and nothing of it reaches a disk.

use std::process::Stdio;

use obyra_evidence::{Failure, text};
use obyra_postgres::cluster::Installation;
use obyra_postgres::{Conninfo, Result, Session, sql_failure};

/// What is dumped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The schemas, as the database calls them.
    pub schemas: &'a [String],
    /// Tables by name, in whatever schema, that are no part of it.
    pub without: &'a [String],
    /// How to take it back, too.
    pub clean: bool,
}

/// A script of the schemas, without owners and privileges: those are the strategy's.
pub(super) async fn dump(
    installation: &Installation,
    database: &Conninfo,
    wanted: Wanted<'_>,
) -> Result<String> {
    let mut command = installation.tool_on("pg_dump", database);
    command.args(["--schema-only", "--no-owner", "--no-privileges", "--no-password", "--no-tablespaces"]);
    command.args(["--no-publications", "--no-subscriptions", "--no-security-labels", "--encoding=UTF8"]);
    command.args(["--lock-wait-timeout=10s", "--extension=*"]);
    command.args(wanted.schemas.iter().map(|schema| format!("--schema={}", pattern(schema))));
    command.args(wanted.without.iter().map(|table| format!("--exclude-table=*.{}", pattern(table))));
    if wanted.clean {
        command.arg("--clean");
    }
    command.env("PGAPPNAME", "obyra-db").stdin(Stdio::null()).kill_on_drop(true);
    let failed = || Failure::new(text::baseline::DUMP_FAILED.with("database", database.host_summary()));
    let output = command.output().await.map_err(|error| failed().because(error))?;
    if !output.status.success() {
        return Err(failed().because(String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed().because(error))
}

/// A name that pg_dump takes for nothing else: quotes switch its wildcards off.
fn pattern(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Refuses a server that is newer than the programs: pg_dump would.
pub(super) fn refuse_newer(installation: &Installation, session: &Session) -> Result<()> {
    let (programs, server) = (installation.major, session.version().major());
    if programs >= server {
        return Ok(());
    }
    let told = text::baseline::SERVER_NEWER.with("programs", &installation.version).with("server", server);
    Err(Failure::new(told).mended_by(text::baseline::MEND_NEWER.with("found", server)))
}

/// What of a database no schema of the strategy holds: other schemas that hold something, and what belongs to
/// the database as a whole. Extensions and what they brought are not among it.
pub(super) async fn outside(session: &Session, schemas: &[String]) -> Result<Vec<String>> {
    let sql = "
        WITH member AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
        held AS (
          SELECT relnamespace AS schema, 'pg_class'::regclass::oid AS classid, oid AS objid FROM pg_catalog.pg_class
          UNION ALL SELECT pronamespace, 'pg_proc'::regclass, oid FROM pg_catalog.pg_proc
          UNION ALL SELECT typnamespace, 'pg_type'::regclass, oid FROM pg_catalog.pg_type WHERE typtype IN ('e', 'd', 'r'))
        SELECT pg_catalog.format('schema %I (%s)', n.nspname, pg_catalog.count(*)) AS told
          FROM held JOIN pg_catalog.pg_namespace n ON n.oid = held.schema
         WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'obyra_gate')
           AND n.nspname <> ALL ($1::text[])
           AND NOT EXISTS (SELECT FROM member m WHERE m.classid = held.classid AND m.objid = held.objid)
         GROUP BY n.nspname
        UNION ALL SELECT pg_catalog.format('event trigger %I', evtname) FROM pg_catalog.pg_event_trigger t
         WHERE evtname !~ '^obyra_gate' AND NOT EXISTS (SELECT FROM member m WHERE m.objid = t.oid)
        UNION ALL SELECT pg_catalog.format('publication %I', pubname) FROM pg_catalog.pg_publication
        UNION ALL SELECT pg_catalog.format('server %I', srvname) FROM pg_catalog.pg_foreign_server
        UNION ALL SELECT pg_catalog.format('cast %s -> %s', c.castsource::regtype, c.casttarget::regtype)
          FROM pg_catalog.pg_cast c
         WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM member m WHERE m.objid = c.oid)
         ORDER BY 1";
    let rows = session.query(sql, &[&schemas]).await;
    let rows = rows.map_err(|e| sql_failure(text::migrations::CATALOGUE_UNREADABLE.message(), &e))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
