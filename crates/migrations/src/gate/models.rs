//! The models beside the schema at the head: Alembic's comparison, and what it does not see.

use obyra_evidence::{Finding, Severity, text};
use obyra_postgres::{Session, quote};

use super::catalogue::Catalogue;
use super::drift;
use super::places::Places;
use crate::driver::{DeclaredCheck, DeclaredEnum, Models};

/// The findings, each where the table's class stands, or else where `env.py` gives the models to Alembic. `schemas` are
/// those of the strategy, the application's first.
pub(super) async fn findings(
    admin: &Session,
    places: &Places<'_>,
    (models, catalogue): (&Models, &Catalogue),
    schemas: &[String],
) -> Vec<Finding> {
    let found = without_places(admin, models, catalogue, schemas).await;
    found.into_iter().map(|finding| placed(places, models, finding)).collect()
}

fn placed(places: &Places<'_>, models: &Models, finding: Finding) -> Finding {
    let fields = finding.message.fields();
    let about = ["table", "name", "names"].into_iter().filter_map(|field| fields.get(field));
    let class = about.flat_map(|name| drift::parts(name)).find_map(|part| models.places.get(part));
    let at = class.or(models.place.as_ref()).map(|line| places.line(line));
    let told = places.finding(finding.severity, &finding.subject, finding.message.clone(), at);
    finding.mend.into_iter().fold(told, Finding::mended_by)
}

async fn without_places(
    admin: &Session,
    models: &Models,
    catalogue: &Catalogue,
    schemas: &[String],
) -> Vec<Finding> {
    use text::gate as say;
    if !models.compared {
        return vec![
            Finding::new(Severity::Note, "models", say::MODELS_MISSING).mended_by(say::MEND_MODELS_MISSING),
        ];
    }
    if let Some(why) = &models.failed {
        let finding = Finding::new(Severity::Error, "models", say::MODELS_FAILED.with("why", why));
        return vec![finding.mended_by(say::MEND_MODELS_FAILED)];
    }
    let mut findings: Vec<Finding> = models
        .differences
        .iter()
        .map(|found| {
            let detail = if found.detail.is_empty() { String::new() } else { format!(" {}", found.detail) };
            let told =
                say::MODEL_DRIFT.with("kind", &found.kind).with("name", &found.name).with("detail", detail);
            Finding::new(Severity::Error, "models", told).mended_by(say::MEND_MODEL_DRIFT)
        })
        .collect();
    for check in &models.checks {
        if !models.differences.iter().any(|found| found.name.contains(&check.name)) {
            findings.extend(check_finding(admin, check, catalogue, schemas).await);
        }
    }
    findings.extend(models.enums.iter().filter_map(|declared| enum_finding(declared, catalogue, schemas)));
    if let Some(made) = &models.made {
        findings.extend(drift::findings(made, &models.differences));
    }
    findings
}

/// Both conditions as the server writes them.
async fn check_finding(
    admin: &Session,
    check: &DeclaredCheck,
    catalogue: &Catalogue,
    schemas: &[String],
) -> Option<Finding> {
    use text::gate as say;
    let table = quote::ident(&check.table);
    let (schema, _) = schema_of(check.schema.as_deref(), schemas, |schema| {
        catalogue.definition(&format!("table {schema}.{table}"))
    })?;
    let qualified = format!("{schema}.{table}");
    let name = quote::ident(&check.name);
    let mend = say::MEND_MODEL_DRIFT;
    let Some(is) = catalogue.definition(&format!("constraint {name} on {qualified}")) else {
        let told = say::CHECK_MISSING.with("name", &check.name).with("table", &qualified);
        return Some(Finding::new(Severity::Error, "models", told).mended_by(mend));
    };
    // A condition that the server does not understand as it stands is no difference.
    let wanted = as_the_server_writes_it(admin, check, (&schema, &qualified)).await?;
    let is = is.split(" comment '").next().unwrap_or(is).trim_end_matches(" NOT VALID");
    if is == wanted {
        return None;
    }
    let told = say::CHECK_DRIFT
        .with("name", &check.name)
        .with("table", &qualified)
        .with("is", is)
        .with("wanted", wanted);
    Some(Finding::new(Severity::Error, "models", told).mended_by(mend))
}

async fn as_the_server_writes_it(
    admin: &Session,
    check: &DeclaredCheck,
    (schema, qualified): (&str, &str),
) -> Option<String> {
    let (table, name) = (quote::ident(&check.table), quote::ident(&check.name));
    let prepare = format!(
        "BEGIN; SET LOCAL search_path = {schema}, public; CREATE TEMPORARY TABLE {table} (LIKE {qualified});
         ALTER TABLE pg_temp.{table} ADD CONSTRAINT {name} CHECK ({});
         SET LOCAL search_path = pg_catalog",
        check.sql
    );
    let ask = format!(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = {} AND conrelid = 'pg_temp.{table}'::regclass",
        quote::literal(&check.name)
    );
    let answer = match admin.batch_execute(&prepare).await {
        Ok(()) => admin.query_one(&ask, &[]).await.ok().map(|row| row.get(0)),
        Err(_) => None,
    };
    let _ = admin.batch_execute("ROLLBACK").await;
    answer
}

fn enum_finding(declared: &DeclaredEnum, catalogue: &Catalogue, schemas: &[String]) -> Option<Finding> {
    let name = quote::ident(&declared.name);
    let (schema, is) = schema_of(declared.schema.as_deref(), schemas, |schema| {
        catalogue.definition(&format!("enum {schema}.{name}"))
    })?;
    let wanted = declared.labels.iter().map(|label| quote::literal(label)).collect::<Vec<_>>().join(", ");
    let is = is.split(" comment '").next().unwrap_or(is);
    if is == wanted {
        return None;
    }
    let told =
        text::gate::ENUM_DRIFT.with("name", format!("{schema}.{name}")).with("is", is).with("wanted", wanted);
    Some(Finding::new(Severity::Error, "models", told).mended_by(text::gate::MEND_MODEL_DRIFT))
}

/// The first schema, quoted, in which something is found.
fn schema_of<'a>(
    declared: Option<&str>,
    schemas: &[String],
    find: impl Fn(&str) -> Option<&'a str>,
) -> Option<(String, &'a str)> {
    let candidates = declared.map(str::to_owned).into_iter();
    let candidates = candidates.chain(schemas.iter().filter(|_| declared.is_none()).cloned());
    candidates
        .map(|schema| quote::ident(&schema))
        .find_map(|schema| find(&schema).map(|found| (schema, found)))
}
