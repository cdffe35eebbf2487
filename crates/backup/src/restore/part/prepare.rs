//! On the temporary server: what is wanted gets its new name there, and loses what ties it to what stays
//! behind. The server is thrown away afterwards.

use obyra_evidence::{Failure, text};
use obyra_postgres::{Conninfo, Limits, Session, mark, quote};

use super::{BringBack, Part, TableName, failed};
use crate::Result;
use crate::restore::instance::Instance;

/// The longest name that PostgreSQL keeps, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// What is ready to be dumped.
pub(super) struct Prepared {
    /// The database, renamed already where that is asked for.
    pub database: Conninfo,
    /// The tables by their new names; empty for a whole database.
    pub tables: Vec<TableName>,
}

/// A table of the temporary server.
struct Found {
    oid: u32,
    name: TableName,
}

/// Renames and unties.
pub(super) async fn prepare(bring: &BringBack<'_>, instance: &Instance) -> Result<Prepared> {
    // A database cannot be renamed from within.
    let beside = if bring.database == "postgres" { "template1" } else { "postgres" };
    let admin = Session::connect(&instance.restored.admin(beside)?, Limits::default()).await?;
    let asked = "SELECT FROM pg_catalog.pg_database WHERE datname = $1";
    if admin.query_opt(asked, &[&bring.database]).await.map_err(|e| failed(&e))?.is_none() {
        let what = text::backup::PART_NO_DATABASE.with("database", bring.database);
        return Err(Failure::new(what.with("target", &bring.plan.target)));
    }
    if let Part::Database { name } = bring.part {
        if name != bring.database {
            let [from, to] = [bring.database, name].map(quote::ident);
            run(&admin, &format!("ALTER DATABASE {from} RENAME TO {to}")).await?;
        }
        let database = instance.restored.admin(name)?;
        mark::remove(&Session::connect(&database, Limits::patient()).await?).await?;
        return Ok(Prepared { database, tables: Vec::new() });
    }
    let database = instance.restored.admin(bring.database)?;
    let session = Session::connect(&database, Limits::patient()).await?;
    mark::remove(&session).await?;
    let tables = match bring.part {
        Part::Tables { tables, schema } => into_schema(bring, &session, tables, schema).await?,
        Part::Table { table, name } => vec![renamed(bring, &session, table, name).await?],
        Part::Database { .. } => Vec::new(),
    };
    Ok(Prepared { database, tables })
}

async fn into_schema(
    bring: &BringBack<'_>,
    session: &Session,
    tables: &[TableName],
    schema: &str,
) -> Result<Vec<TableName>> {
    let mut found: Vec<Found> = Vec::new();
    for table in tables {
        for one in tree(bring, session, table).await? {
            if found.iter().all(|known| known.oid != one.oid) {
                found.push(one);
            }
        }
    }
    if let Some(twice) =
        found.iter().find(|a| found.iter().any(|b| b.oid != a.oid && b.name.name == a.name.name))
    {
        return Err(Failure::usage(text::backup::PART_SAME_NAME.with("table", &twice.name.name)));
    }
    untie(session, &found).await?;
    // It may have existed at that moment, with other things in it.
    let aside = quote::ident(&shortened(schema, "_before"));
    let [schema_name, text] = [quote::ident(schema), quote::literal(schema)];
    let free = format!(
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {text}) \
         THEN ALTER SCHEMA {schema_name} RENAME TO {aside}; END IF; END $$; CREATE SCHEMA {schema_name}"
    );
    run(session, &free).await?;
    let mut moved = Vec::new();
    for one in &found {
        let name = name_of(session, one.oid).await?;
        run(session, &format!("ALTER TABLE {} SET SCHEMA {schema_name}", name.quoted())).await?;
        moved.push(TableName { schema: schema.to_owned(), name: name.name });
    }
    Ok(moved)
}

async fn renamed(
    bring: &BringBack<'_>,
    session: &Session,
    table: &TableName,
    to: &TableName,
) -> Result<TableName> {
    let found = tree(bring, session, table).await?;
    if found.len() > 1 {
        let what = text::backup::PART_PARTITIONED.with("table", table.quoted());
        return Err(Failure::usage(what).mended_by(text::backup::PART_PARTITIONED_MEND));
    }
    untie(session, &found).await?;
    for one in &found {
        // Indexes and sequences have names in the schema, too.
        let dependants = "
            SELECT c.relname, c.relkind::text FROM pg_catalog.pg_index i
              JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1
            UNION ALL
            SELECT c.relname, c.relkind::text FROM pg_catalog.pg_depend d
              JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
             WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refobjid = $1 AND d.deptype IN ('a', 'i')";
        for row in session.query(dependants, &[&one.oid]).await.map_err(|e| failed(&e))? {
            let (name, kind): (String, String) = (row.get(0), row.get(1));
            let verb = if kind == "S" { "SEQUENCE" } else { "INDEX" };
            let from = quote::qualified(&table.schema, &name);
            let fresh = quote::ident(&renamed_with(&name, &table.name, &to.name));
            run(session, &format!("ALTER {verb} {from} RENAME TO {fresh}")).await?;
        }
    }
    // Out of the way of whatever has the new name at that moment.
    let [schema, name] = [&to.schema, &to.name].map(|name| quote::ident(name));
    let passage = quote::ident("obyra-db passage");
    let there = format!(
        "CREATE SCHEMA {passage}; ALTER TABLE {} SET SCHEMA {passage}; \
         ALTER TABLE {passage}.{} RENAME TO {name}; DROP TABLE IF EXISTS {schema}.{name} CASCADE; \
         CREATE SCHEMA IF NOT EXISTS {schema}; ALTER TABLE {passage}.{name} SET SCHEMA {schema}",
        table.quoted(),
        quote::ident(&table.name),
    );
    run(session, &there).await?;
    Ok(to.clone())
}

/// A table with all its partitions.
async fn tree(bring: &BringBack<'_>, session: &Session, table: &TableName) -> Result<Vec<Found>> {
    let sql = "
        WITH RECURSIVE tree AS (
            SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
            UNION ALL
            SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
        SELECT c.oid, n.nspname, c.relname FROM tree JOIN pg_catalog.pg_class c USING (oid)
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
    let rows = session.query(sql, &[&table.schema, &table.name]).await.map_err(|e| failed(&e))?;
    if rows.is_empty() {
        let what = text::backup::PART_NO_TABLE.with("table", table.quoted()).with("database", bring.database);
        return Err(
            Failure::new(what.with("target", &bring.plan.target)).mended_by(text::backup::PART_NO_TABLE_MEND)
        );
    }
    let found = |row: &obyra_postgres::tokio_postgres::Row| Found {
        oid: row.get(0),
        name: TableName { schema: row.get(1), name: row.get(2) },
    };
    Ok(rows.iter().map(found).collect())
}

async fn name_of(session: &Session, oid: u32) -> Result<TableName> {
    let sql = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let row = session.query_one(sql, &[&oid]).await.map_err(|e| failed(&e))?;
    Ok(TableName { schema: row.get(0), name: row.get(1) })
}

/// Takes away what points out of the set or acts by itself: foreign keys, triggers, policies, rules,
/// extended statistics, parents that stay behind.
async fn untie(session: &Session, tables: &[Found]) -> Result<()> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let sql = "
        SELECT pg_catalog.format('ALTER TABLE %s DETACH PARTITION %s', i.inhparent::regclass, i.inhrelid::regclass)
          FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
         WHERE i.inhrelid = ANY ($1) AND NOT i.inhparent = ANY ($1) AND c.relispartition
        UNION ALL
        SELECT pg_catalog.format('ALTER TABLE %s NO INHERIT %s', i.inhrelid::regclass, i.inhparent::regclass)
          FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
         WHERE i.inhrelid = ANY ($1) AND NOT i.inhparent = ANY ($1) AND NOT c.relispartition
        UNION ALL
        SELECT pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
          FROM pg_catalog.pg_constraint
         WHERE contype = 'f' AND conparentid = 0 AND (conrelid = ANY ($1) OR confrelid = ANY ($1))
        UNION ALL
        SELECT pg_catalog.format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)
          FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgparentid = 0 AND tgrelid = ANY ($1)
        UNION ALL
        SELECT pg_catalog.format('DROP POLICY %I ON %s', polname, polrelid::regclass)
          FROM pg_catalog.pg_policy WHERE polrelid = ANY ($1)
        UNION ALL
        SELECT pg_catalog.format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', oid::regclass)
          FROM pg_catalog.pg_class WHERE oid = ANY ($1) AND (relrowsecurity OR relforcerowsecurity)
        UNION ALL
        SELECT pg_catalog.format('DROP RULE %I ON %s', rulename, ev_class::regclass)
          FROM pg_catalog.pg_rewrite WHERE ev_class = ANY ($1)
        UNION ALL
        SELECT pg_catalog.format('DROP STATISTICS %I.%I', n.nspname, s.stxname)
          FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
         WHERE s.stxrelid = ANY ($1)";
    for row in session.query(sql, &[&oids]).await.map_err(|e| failed(&e))? {
        run(session, row.get(0)).await?;
    }
    Ok(())
}

async fn run(session: &Session, sql: &str) -> Result<()> {
    session.batch_execute(sql).await.map_err(|e| failed(&e))
}

/// `orders_pkey` becomes `orders_restored_pkey`; what does not begin with the table's name gets the new
/// name appended.
fn renamed_with(name: &str, table: &str, fresh: &str) -> String {
    match name.strip_prefix(table) {
        Some(rest) => shortened(fresh, rest),
        None => shortened(name, &format!("_{fresh}")),
    }
}

/// A name and its end, as long as PostgreSQL keeps it; the end stays whole where that is possible.
fn shortened(name: &str, end: &str) -> String {
    let mut end = end;
    while end.len() > NAME_BYTES_MAX {
        end = &end[..end.floor_char_boundary(NAME_BYTES_MAX)];
    }
    format!("{}{end}", &name[..name.floor_char_boundary(NAME_BYTES_MAX - end.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_what_postgresql_keeps() {
        assert_eq!(renamed_with("orders_pkey", "orders", "orders_old"), "orders_old_pkey");
        assert_eq!(renamed_with("by_customer", "orders", "orders_old"), "by_customer_orders_old");
        let long = renamed_with("orders_pkey", "orders", &"ñ".repeat(40));
        assert!(long.len() <= 63 && long.ends_with("ñ_pkey"), "{long}");
        assert_eq!(shortened("a", &"x".repeat(80)).len(), 63);
    }
}
