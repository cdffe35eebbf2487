//! `backup restore --table … --as …`: one table, some tables or one database of an earlier moment, brought
//! back into the running server under another name.

use obyra_backup::restore::{BringBack, Part, Stage, TableName};
use obyra_evidence::{Exit, Failure, HumanDuration, Outcome, text};

use super::RestoreTo;
use super::way::{self, Way};
use crate::confirm::confirm;
use crate::environment::{Opened, Told};

/// Shows, asks, brings back, records.
pub async fn bring_back(opened: &Opened<'_>, way: &Way, arguments: &RestoreTo) -> Result<Exit, Failure> {
    let part = part(opened, arguments)?;
    let target = opened.admin().await?;
    let database = arguments.database.as_deref().unwrap_or(&opened.environment.database);
    let (major, superuser) = way::origin(&way.repository, way.cluster).await?;
    let installation = way::installation(opened, major).await?;
    let manifest = way.manifest().await?;
    let bring = BringBack {
        stage: Stage {
            repository: &way.repository,
            cluster: way.cluster,
            installation: &installation,
            scratch: arguments.scratch.as_deref(),
            superuser: &superuser,
            threads: way::threads(),
            databases: None,
        },
        plan: &way.plan,
        manifest: &manifest,
        database,
        part: &part,
        target: &target,
    };
    let printer = opened.invocation.printer;
    if !printer.json {
        bring.words().into_iter().for_each(|words| printer.line(words));
    }
    if arguments.dry_run {
        return Ok(Exit::Done);
    }
    confirm(&printer, arguments.consent, text::backup::PART_ASK.with("environment", opened.name()))?;
    opened.can_record()?;
    let outcome = bring.run(&opened.invocation.progress()).await;
    let expected = format!("a part of {database} as it was at {}", way.plan.target);
    let brought = opened.recorded("backup.bring-back", &expected, outcome, |brought| {
        let names: Vec<&str> = brought.tables.iter().map(|table| table.table.as_str()).collect();
        let rows: u64 = brought.tables.iter().map(|table| table.rows).sum();
        let told = Told::new(&expected, format!("brought back {}", names.join(", ")))
            .figure("rows", rows as f64)
            .figure("bytes", brought.bytes as f64)
            .figure("restore_seconds", brought.restoring.as_secs_f64())
            .figure("copy_seconds", brought.copying.as_secs_f64())
            .fact("backup", &way.plan.backup.id);
        (Outcome::Changed, told)
    })?;
    if printer.json {
        printer.json(&brought);
        return Ok(Exit::Done);
    }
    for table in &brought.tables {
        printer.line(text::backup::PART_BROUGHT.with("table", &table.table).with("rows", table.rows));
    }
    if !brought.missing_roles.is_empty() {
        printer.line(text::backup::PART_ROLES.with("roles", brought.missing_roles.join(", ")));
    }
    let seconds = (brought.restoring + brought.copying).as_secs().max(1);
    printer.line(text::backup::PART_TOOK.with("duration", HumanDuration::from_seconds(seconds).short()));
    Ok(Exit::Done)
}

/// What is asked for. `--as` names the new database; for one table its new name, `NAME` or `SCHEMA.NAME`; for several,
/// or as `SCHEMA.*`, the new schema in which they keep their names.
fn part(opened: &Opened<'_>, arguments: &RestoreTo) -> Result<Part, Failure> {
    let name = arguments.name.clone().unwrap_or_default();
    let tables: Vec<TableName> = arguments.table.iter().map(|table| table_name(opened, table)).collect();
    if let Some(schema) = name.strip_suffix(".*") {
        return Ok(Part::Tables { tables, schema: schema.to_owned() });
    }
    match (tables.as_slice(), name.split_once('.')) {
        ([], _) => Ok(Part::Database { name }),
        ([table], None) => {
            let name = TableName { schema: table.schema.clone(), name };
            Ok(Part::Table { table: table.clone(), name })
        }
        ([table], Some((schema, name))) => {
            let name = TableName { schema: schema.to_owned(), name: name.to_owned() };
            Ok(Part::Table { table: table.clone(), name })
        }
        (_, None) => Ok(Part::Tables { tables, schema: name }),
        (_, Some(_)) => Err(Failure::usage(text::backup::PART_ONE_NAME)),
    }
}

/// A table without its schema is looked for in the application's.
fn table_name(opened: &Opened<'_>, written: &str) -> TableName {
    let app = opened.environment.schemas.get("app").map_or("public", String::as_str);
    let (schema, name) = written.split_once('.').unwrap_or((app, written));
    TableName { schema: schema.to_owned(), name: name.to_owned() }
}
