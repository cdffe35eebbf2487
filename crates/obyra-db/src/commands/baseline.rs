//! `migrate baseline`: one revision that creates the schema as it is, in place of a history that cannot be replayed.

mod stamps;

use std::path::{Path, PathBuf};

use clap::Args;
use obyra_evidence::{Exit, Failure, Outcome, text};
use obyra_migrations::PythonSearch;
use obyra_migrations::baseline::{self, Change, Draft, Order, Truth};
use obyra_postgres::cluster::Search;
use obyra_strategy::Strategy;

use self::stamps::Standing;
use crate::cli::Consent;
use crate::clock;
use crate::commands::findings::{self, Format};
use crate::commands::gate::{Prepared, schemas, strictest};
use crate::commands::migrate::hidden_variables;
use crate::confirm::confirm;
use crate::environment::{Opened, Told};
use crate::invocation::Invocation;

const EXPECTED: &str = "one revision that creates the schema, proven both ways";

/// Arguments of `migrate baseline`.
#[derive(Args, Debug)]
pub struct Baseline {
    /// The environment whose schema is the truth; with --schema or --from-models only its version, roles and
    /// schemas count (default: production's)
    #[arg(required_unless_present_any = ["schema", "from_models"])]
    pub environment: Option<String>,
    /// The truth is this script of pg_dump --schema-only
    #[arg(long, value_name = "DUMP", conflicts_with = "from_models")]
    pub schema: Option<PathBuf>,
    /// The truth is what create_all makes of the models
    #[arg(long)]
    pub from_models: bool,
    /// With --from-models, run this afterwards, in the order given: file.sql, file.py or file.py:function
    #[arg(long, value_name = "FILE", requires = "from_models")]
    pub runtime: Vec<String>,
    /// What the revision is called
    #[arg(long, short, default_value = "baseline")]
    pub message: String,
    /// Prove it and show it; write nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub consent: Consent,
}

/// Runs the verb.
pub async fn run(
    invocation: &Invocation,
    strategy: &Strategy,
    arguments: &Baseline,
) -> Result<Exit, Failure> {
    let name = match &arguments.environment {
        Some(name) => name.as_str(),
        None => strictest(strategy).map(|environment| environment.name.as_str()).unwrap_or_default(),
    };
    let opened = Opened::new(invocation, strategy, name)?;
    let printer = invocation.printer;
    let policy = &opened.environment.migrations;
    if let Some(folder) = baseline::unfinished(policy, &strategy.folder, !arguments.dry_run)? {
        let told = if arguments.dry_run { text::baseline::UNFINISHED } else { text::baseline::FINISHED };
        printer.note(told.with("folder", folder.display()));
        if arguments.dry_run {
            return Ok(Exit::Done);
        }
    }
    let truth = truth(&opened, arguments).await?;
    let parts = Parts::of(&opened)?;
    let order = parts.order(&opened);
    let mut site = Prepared::of(&opened)?;
    let draft =
        baseline::draft(&order, &truth, &arguments.message, &mut site, &invocation.progress()).await?;
    if !draft.is_proven() {
        return refuse(&opened, &draft);
    }
    let date = clock::now().strftime("%Y%m%d_%H%M").to_string();
    let change = Change::plan(policy, &strategy.folder, &draft.revision, &arguments.message, &date)?;
    let source = matches!(truth, Truth::Live(_)).then_some(name);
    let standings = stamps::standings(invocation, strategy, &draft.revision, source).await;
    if printer.json {
        printer.json(&document(&draft, &change, &standings));
    } else {
        show(&opened, &draft, &change, &standings);
        if arguments.dry_run {
            printer.data(&format!("\n{}", draft.revision.source));
        }
    }
    if !arguments.dry_run && change.file.is_some() {
        make(&opened, arguments, &draft, &change)?;
    }
    Ok(Exit::Done)
}

async fn truth(opened: &Opened<'_>, arguments: &Baseline) -> Result<Truth, Failure> {
    Ok(match &arguments.schema {
        Some(file) => Truth::Dump(file.clone()),
        None if arguments.from_models => Truth::Models(arguments.runtime.clone()),
        None => Truth::Live(Box::new(opened.admin().await?)),
    })
}

/// What an order borrows.
pub struct Parts {
    python: PythonSearch,
    postgres: Search,
    hidden: Vec<String>,
    schemas: Vec<String>,
    without: Vec<String>,
}

impl Parts {
    /// Of an environment. Nothing is connected.
    pub fn of(opened: &Opened<'_>) -> Result<Self, Failure> {
        let cache = opened.invocation.cache()?;
        Ok(Parts {
            python: PythonSearch::new(&opened.environment.migrations, &opened.strategy.folder, &cache),
            postgres: opened.postgres_search()?,
            hidden: hidden_variables(opened),
            schemas: schemas(opened.environment),
            without: vec![opened.environment.seeds.table.clone()],
        })
    }

    /// The order.
    pub fn order<'a>(&'a self, opened: &'a Opened<'_>) -> Order<'a> {
        Order {
            policy: &opened.environment.migrations,
            project: &opened.strategy.folder,
            python: &self.python,
            postgres: &self.postgres,
            hidden_variables: &self.hidden,
            database: &opened.environment.database,
            schemas: &self.schemas,
            without: &self.without,
        }
    }
}

/// What is not proven is not written.
fn refuse(opened: &Opened<'_>, draft: &Draft) -> Result<Exit, Failure> {
    let printer = opened.invocation.printer;
    findings::print(printer, "obyra-db migrate baseline", Format::Text, &draft.findings);
    printer.note(text::baseline::REFUSED);
    let first = draft.findings.first().map(|finding| finding.message.to_string()).unwrap_or_default();
    opened.record("migrations.baseline", Outcome::Failed, Told::new(EXPECTED, first))?;
    Ok(Exit::Findings)
}

fn document(draft: &Draft, change: &Change, standings: &[Standing]) -> serde_json::Value {
    serde_json::json!({
        "revision": draft.revision,
        "change": change,
        "environments": standings,
        "findings": draft.findings,
    })
}

fn show(opened: &Opened<'_>, draft: &Draft, change: &Change, standings: &[Standing]) {
    use text::baseline as say;
    let printer = opened.invocation.printer;
    for finding in &draft.findings {
        printer.warning(finding);
    }
    match &change.file {
        None => printer.line(say::DONE_ALREADY.with("revision", &draft.revision.id)),
        Some(file) => {
            let told = say::WRITE
                .with("file", shorten(file))
                .with("objects", draft.revision.objects)
                .with("revision", &draft.revision.id);
            printer.line(told);
        }
    }
    if let Some(archive) = &change.archive {
        let told = say::ARCHIVE
            .with("versions", shorten(&change.versions))
            .with("archive", shorten(archive))
            .with("count", change.archived.len());
        printer.line(told);
    }
    printer.line(say::STAMPS);
    for standing in standings {
        printer.data(&format!("  {}", standing.message().say(printer.language)));
    }
    let flask = opened.environment.migrations.app.is_some();
    let command = if flask { "flask db stamp --purge" } else { "alembic stamp --purge" };
    let command = format!("{command} {}", draft.revision.id);
    printer.data(&format!("  {}", say::STAMP_ALEMBIC.with("command", command).say(printer.language)));
}

/// A path as the user stands to it.
fn shorten(file: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    file.strip_prefix(here).unwrap_or(file).display().to_string()
}

fn make(opened: &Opened<'_>, arguments: &Baseline, draft: &Draft, change: &Change) -> Result<(), Failure> {
    let printer = opened.invocation.printer;
    let ask = text::baseline::ASK.with("count", change.archived.len());
    confirm(&printer, arguments.consent, ask)?;
    opened.can_record()?;
    change.make(&draft.revision)?;
    let shown = change.file.as_deref().map(shorten).unwrap_or_default();
    let archive = change.archive.as_deref().map_or_else(|| "-".to_owned(), shorten);
    let told = Told::new(EXPECTED, format!("{shown}, {} objects", draft.revision.objects))
        .figure("objects", draft.revision.objects as f64)
        .figure("archived_revisions", change.archived.len() as f64)
        .fact("head", &draft.revision.id)
        .fact("archive", archive);
    opened.record("migrations.baseline", Outcome::Changed, told)?;
    printer.note(text::baseline::WRITTEN.with("file", shown));
    Ok(())
}
