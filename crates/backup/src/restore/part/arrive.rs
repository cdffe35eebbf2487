//! On the target: whether the new name is free, the copy itself, and the comparison with what was dumped.

use std::collections::BTreeSet;

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::{Conninfo, Limits, Session, quote, sql_failure};

use super::prepare::Prepared;
use super::{BringBack, Brought, BroughtTable, Part, failed, pipe};
use crate::Result;
use crate::figures::{self, TableFigures};
use crate::restore::instance::Instance;

/// Refuses a name that is taken, and a target on which nothing can be made.
pub(super) async fn check(bring: &BringBack<'_>) -> Result<()> {
    let session = Session::connect(bring.target, Limits::default()).await?;
    let (sql, name) = match bring.part {
        Part::Tables { schema, .. } => (
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1),
                     pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')",
            schema.clone(),
        ),
        Part::Table { name, .. } => (
            "SELECT pg_catalog.to_regclass($1) IS NOT NULL,
                     pg_catalog.has_schema_privilege((pg_catalog.parse_ident($1))[1], 'CREATE')",
            name.quoted(),
        ),
        Part::Database { name } => (
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1),
                     (SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)",
            name.clone(),
        ),
    };
    let row = session.query_one(sql, &[&name]).await;
    let row = row.map_err(|e| sql_failure(text::backup::PART_TARGET.with("name", &name), &e))?;
    let (taken, allowed): (bool, bool) = (row.get(0), row.get(1));
    if taken {
        return Err(Failure::refused(text::backup::PART_TAKEN.with("name", &name))
            .mended_by(text::backup::PART_TAKEN_MEND));
    }
    if !allowed {
        let what = text::backup::PART_NOT_ALLOWED.with("name", &name).with("role", bring.target.user());
        return Err(Failure::refused(what).mended_by(text::backup::PART_NOT_ALLOWED_MEND));
    }
    Ok(())
}

/// Copies and compares.
pub(super) async fn copy(
    bring: &BringBack<'_>,
    instance: &Instance,
    prepared: &Prepared,
    progress: &dyn Progress,
) -> Result<Brought> {
    let source = Session::connect(&prepared.database, Limits::patient()).await?;
    let missing_roles = match bring.part {
        Part::Database { .. } => missing_roles(bring, &source).await?,
        // Tables belong to whoever brings them back, and nobody else may see them.
        _ => Vec::new(),
    };
    let mut arguments = match bring.part {
        Part::Tables { schema, .. } => vec![format!("--schema={}", pattern(schema))],
        Part::Table { name, .. } => {
            vec![format!("--table={}.{}", pattern(&name.schema), pattern(&name.name))]
        }
        Part::Database { .. } => Vec::new(),
    };
    let keeps_owners = matches!(bring.part, Part::Database { .. }) && missing_roles.is_empty();
    if !keeps_owners {
        arguments.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
    }
    let target = match bring.part {
        Part::Database { name } => {
            create(bring, &source, name).await?;
            bring.target.with_database(name)
        }
        _ => bring.target.clone(),
    };
    let copied = pipe_and_compare(bring, instance, (&source, prepared, &arguments), &target, progress).await;
    if let (Err(_), Part::Database { name }) = (&copied, bring.part) {
        drop_database(bring, name).await?;
    }
    let (tables, bytes) = copied.map_err(|failure| match &missing_roles[..] {
        [] => failure,
        roles => failure.mended_by(text::backup::PART_ROLES_MEND.with("roles", roles.join(", "))),
    })?;
    let (restoring, copying) = Default::default();
    Ok(Brought { tables, bytes, missing_roles, restoring, copying })
}

async fn pipe_and_compare(
    bring: &BringBack<'_>,
    instance: &Instance,
    (source, prepared, arguments): (&Session, &Prepared, &[String]),
    target: &Conninfo,
    progress: &dyn Progress,
) -> Result<(Vec<BroughtTable>, u64)> {
    let installation = instance.restored.installation();
    let from = (&prepared.database, arguments);
    let bytes = pipe::run(installation, from, (target, ""), progress).await?;
    let there = Session::connect(target, Limits::patient()).await?;
    let (mut expected, mut found) =
        (figures_of(source, prepared).await?, figures_of(&there, prepared).await?);
    expected.sort();
    found.sort();
    let differences = figures::differences(&expected, &found);
    if !differences.is_empty() {
        let what = text::backup::PART_DIFFERS.with("count", differences.len());
        let place =
            if matches!(bring.part, Part::Database { .. }) { target.database() } else { bring.database };
        return Err(figures::differ(what.with("database", place), &differences));
    }
    let brought =
        found.into_iter().map(|one| BroughtTable { table: one.table, rows: one.rows.unsigned_abs() });
    Ok((brought.collect(), bytes))
}

async fn figures_of(session: &Session, prepared: &Prepared) -> Result<Vec<TableFigures>> {
    let failed = |e| sql_failure(text::backup::FIGURES.message(), &e);
    session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
    let taken = if prepared.tables.is_empty() {
        figures::take(session).await?
    } else {
        let names: Vec<String> = prepared.tables.iter().map(super::TableName::quoted).collect();
        figures::take_of(session, &names).await?
    };
    session.batch_execute("COMMIT").await.map_err(failed)?;
    Ok(taken)
}

/// The roles that own something in the database or were granted something, and that the target lacks.
async fn missing_roles(bring: &BringBack<'_>, source: &Session) -> Result<Vec<String>> {
    let sql = "SELECT DISTINCT r.rolname FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
                WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
                  AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
    let named = source.query(sql, &[]).await.map_err(|e| failed(&e))?;
    let there = Session::connect(bring.target, Limits::default()).await?;
    let known = there.query("SELECT rolname FROM pg_catalog.pg_roles", &[]).await;
    let known = known
        .map_err(|e| sql_failure(text::backup::PART_TARGET.with("name", bring.target.database()), &e))?;
    let known: BTreeSet<String> = known.iter().map(|row| row.get(0)).collect();
    let named = named.iter().map(|row| row.get::<_, String>(0));
    Ok(named.filter(|role| !known.contains(role)).collect())
}

/// Makes the new database with the encoding and the collation of the old one.
async fn create(bring: &BringBack<'_>, source: &Session, name: &str) -> Result<()> {
    let version = source.version().major();
    let provider = match version {
        ..15 => "'c'::\"char\", NULL::text",
        15 | 16 => "datlocprovider, daticulocale",
        _ => "datlocprovider, datlocale",
    };
    let sql = format!(
        "SELECT pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, {provider}
           FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
    );
    let row = source.query_one(&sql, &[]).await.map_err(|e| failed(&e))?;
    let text = |at: usize| quote::literal(row.get(at));
    let mut create = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote::ident(name),
        text(0),
        text(1),
        text(2)
    );
    let locale = row.get::<_, Option<String>>(4).map(|locale| quote::literal(&locale));
    match (row.get::<_, i8>(3).cast_unsigned(), locale) {
        (b'i', Some(locale)) => create.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}")),
        (b'b', Some(locale)) => create.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}")),
        _ => {}
    }
    let session = Session::connect(bring.target, Limits::patient()).await?;
    let made = session.batch_execute(&create).await;
    made.map_err(|e| sql_failure(text::backup::PART_TARGET.with("name", name), &e))
}

/// Takes back what was made here a moment ago.
async fn drop_database(bring: &BringBack<'_>, name: &str) -> Result<()> {
    let session = Session::connect(bring.target, Limits::patient()).await?;
    let dropped = session.batch_execute(&format!("DROP DATABASE {}", quote::ident(name))).await;
    dropped.map_err(|e| sql_failure(text::backup::PART_TARGET.with("name", name), &e))
}

/// A name as `pg_dump` takes it for a pattern: in quotes nothing in it is special.
fn pattern(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
