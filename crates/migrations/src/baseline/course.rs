//! The course of a baseline: a server, the application's Python, the schema as it is, the revision that makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Finding, Message, Place, Progress, Severity, text};
use obyra_postgres::{Conninfo, Limits, Result, Session, quote, sql_failure};

use super::dump::{self, Wanted};
use super::image::Image;
use super::proof::Onlooker;
use super::restore::{LeftOut, Script};
use super::revision::{self, Revision, Wording};
use super::{Order, Site, Truth};
use crate::driver::{Driver, UpgradeError, Workplace};
use crate::gate::stage::{Database, Stage};
use crate::{PythonEnvironment, explain, find_or_make};

/// A baseline under way.
pub(super) struct Course<'a> {
    pub order: &'a Order<'a>,
    pub progress: &'a dyn Progress,
    pub stage: Stage,
    pub python: PythonEnvironment,
    pub driver: Driver,
    /// The first database, as the strategy makes it before the first revision.
    empty: Empty,
}

/// What an environment is before its first revision.
struct Empty {
    /// The schema whose name revisions leave out.
    unnamed: Option<String>,
    extensions: BTreeSet<String>,
    comments: BTreeMap<String, String>,
}

/// The schema as it is.
pub(super) struct Source {
    pub script: Script,
    pub image: Image,
    left: LeftOut,
    /// What there is beside the strategy's schemas.
    beside: Vec<String>,
    /// The revision's text as pg_dump has it, with how to take it back.
    clean: Script,
    /// What the schema that revisions leave unnamed is called there.
    placeholder: Option<String>,
}

impl<'a> Course<'a> {
    /// Starts the server and Python side by side. With `versions`, Alembic finds its revisions there.
    pub async fn prepare(
        order: &'a Order<'a>,
        versions: Option<&Path>,
        site: &mut impl Site,
        progress: &'a dyn Progress,
    ) -> Result<Course<'a>> {
        let server = async {
            let mut stage =
                Stage::start(order.postgres, order.database, !order.policy.variables.is_empty(), progress)
                    .await?;
            let database = stage.database(site).await?;
            let empty = Empty::of(&database, order.schemas).await?;
            Ok::<_, Failure>((stage, empty))
        };
        let application = async {
            let python = find_or_make(order.python, progress).await?;
            let work = order.workplace(&python);
            let driver = match versions {
                Some(versions) => Driver::start_in(&work, versions).await?,
                None => Driver::start(&work).await?,
            };
            Ok::<_, Failure>((python, driver))
        };
        let (server, application) = tokio::join!(server, application);
        // A wrong folder says more than a server that was of no use.
        let (python, driver) = application?;
        let (stage, empty) = server?;
        Ok(Course { order, progress, stage, python, driver, empty })
    }

    /// Reads the truth, and restores it.
    pub async fn source(&mut self, truth: &Truth, site: &mut impl Site) -> Result<Source> {
        let (script, beside) = match truth {
            Truth::Dump(file) => (Script::read(file, self.stage.installation().major)?, Vec::new()),
            Truth::Live(database) => self.live(database).await?,
            Truth::Models(files) => {
                let database = self.stage.database(site).await?;
                self.create_all(&database, files).await?;
                self.live(&self.stage.reached()).await?
            }
        };
        self.restored(script, beside).await
    }

    /// The schema of a database, which is only read.
    async fn live(&self, database: &Conninfo) -> Result<(Script, Vec<String>)> {
        let session = Session::connect(database, Limits::default()).await?;
        dump::refuse_newer(self.stage.installation(), &session)?;
        let beside = dump::outside(&session, self.order.schemas).await?;
        let (schemas, without) = (self.order.schemas, self.order.tables_left_out());
        let wanted = Wanted { schemas, without: &without, clean: false };
        let script = dump::dump(self.stage.installation(), database, wanted).await?;
        Ok((Script::new(script, None)?, beside))
    }

    /// Restores a script, and finds out how it is written as a revision.
    pub async fn restored(&mut self, script: Script, mut beside: Vec<String>) -> Result<Source> {
        self.progress.begin(text::baseline::READING.message(), None);
        let (schemas, without) = (self.order.schemas, self.order.tables_left_out());
        let database = self.stage.empty().await?;
        let left = script.restore(&database, schemas).await?;
        let admin = self.stage.watched().await?;
        if let Some(file) = &script.file {
            let remaining = dump::outside(&admin, schemas).await?;
            if !remaining.is_empty() {
                let told = text::baseline::DUMP_OUTSIDE.with("objects", remaining.join(", "));
                let place = Place { file: file.clone(), line: 1, column: 1 };
                return Err(Failure::usage(told).at(place).mended_by(text::baseline::MEND_OUTSIDE));
            }
        }
        beside.extend(left.outside.iter().cloned());
        let image = Image::of((&admin, &database), self.stage.installation(), schemas).await?;
        let placeholder = match &self.empty.unnamed {
            Some(schema) => Some(rename(&admin, schema, &script.text).await?),
            None => None,
        };
        let called: Vec<String> = schemas
            .iter()
            .map(|schema| match &placeholder {
                Some(placeholder) if self.empty.unnamed.as_ref() == Some(schema) => placeholder.clone(),
                _ => schema.clone(),
            })
            .collect();
        let wanted = Wanted { schemas: &called, without: &without, clean: true };
        let clean = dump::dump(self.stage.installation(), &database, wanted).await?;
        self.progress.done();
        Ok(Source { script, image, left, beside, clean: Script::new(clean, None)?, placeholder })
    }

    /// The revision that creates a schema.
    pub async fn write(&self, source: &Source, message: &str) -> Result<Revision> {
        let mut comments = self.empty.comments.clone();
        if let (Some(unnamed), Some(placeholder)) = (&self.empty.unnamed, &source.placeholder)
            && let Some(comment) = comments.remove(unnamed)
        {
            comments.insert(placeholder.clone(), comment);
        }
        let wording = Wording {
            message,
            unnamed: source.placeholder.as_deref(),
            given: &self.empty.extensions,
            comments: &comments,
        };
        let revision = revision::write(source.clean.statements(), &wording);
        revision.ok_or_else(|| {
            let schemas = self.order.schemas.join(", ");
            Failure::usage(text::baseline::NOTHING.with("schemas", schemas))
                .mended_by(text::baseline::MEND_OUTSIDE)
        })
    }

    /// What the models make, and the files change.
    async fn create_all(&mut self, database: &Database, files: &[String]) -> Result<()> {
        use text::baseline as say;
        let files: Vec<File> =
            files.iter().map(|file| File::parse(self.order.project, file)).collect::<Result<_>>()?;
        let work = self.order.workplace(&self.python);
        self.driver.connect(database).await?;
        let mut onlooker = Onlooker::of(database).await?;
        match self.driver.create_all(&mut onlooker).await {
            Ok(_) => {}
            Err(UpgradeError::Complaint(complaint)) => {
                let failure = Failure::new(say::CREATE_ALL_FAILED);
                let failure = failure.because(explain::words(&complaint.kind, &complaint.said));
                return Err(match &complaint.place {
                    Some(line) => failure.at(explain::place(self.order.project, line)),
                    None => failure,
                });
            }
            Err(UpgradeError::Failure(failure)) => return Err(failure),
            Err(UpgradeError::TimedOut) => return Err(Failure::new(say::CREATE_ALL_FAILED)),
        }
        for file in files {
            file.run(&mut self.driver, &work, &database.runner).await?;
        }
        Ok(())
    }
}

impl Empty {
    async fn of(database: &Database, schemas: &[String]) -> Result<Empty> {
        let unreadable = |e: &obyra_postgres::tokio_postgres::Error| {
            sql_failure(text::migrations::CATALOGUE_UNREADABLE.message(), e)
        };
        let runner = Session::connect(&database.runner, Limits::default()).await?;
        let first = runner.query_one("SELECT pg_catalog.current_schema()::text", &[]).await;
        let first: Option<String> = first.map_err(|e| unreadable(&e))?.get(0);
        let extensions = "SELECT extname::text FROM pg_catalog.pg_extension";
        let extensions = database.admin.query(extensions, &[]).await.map_err(|e| unreadable(&e))?;
        let comments = "SELECT nspname::text, pg_catalog.quote_literal(pg_catalog.obj_description(oid, 'pg_namespace'))
                          FROM pg_catalog.pg_namespace WHERE pg_catalog.obj_description(oid, 'pg_namespace') IS NOT NULL";
        let comments = database.admin.query(comments, &[]).await.map_err(|e| unreadable(&e))?;
        Ok(Empty {
            unnamed: first.filter(|schema| schemas.contains(schema)),
            extensions: extensions.iter().map(|row| row.get(0)).collect(),
            comments: comments.iter().map(|row| (row.get(0), row.get(1))).collect(),
        })
    }
}

impl Source {
    /// What is not in the baseline.
    pub fn findings(&self) -> Vec<Finding> {
        use text::baseline as say;
        let note = |subject: &str, message: Message| Finding::new(Severity::Warning, subject, message);
        let beside = self.beside.iter().map(|object| note(object, say::BESIDE.message()));
        let lacking = self.left.extensions.iter().map(|(extension, why)| {
            note(&format!("extension {extension}"), say::EXTENSION_LEFT_OUT.with("why", why))
        });
        beside.chain(lacking).collect()
    }
}

/// Gives a schema a name that its dump holds nowhere else, so that it can be told from every other word.
async fn rename(admin: &Session, schema: &str, dump: &str) -> Result<String> {
    let names = std::iter::successors(Some(0_u32), |number| Some(number + 1));
    let mut names = names.map(|number| format!("obyra_unnamed_{number}"));
    let name = names.find(|name| !dump.contains(name)).unwrap_or_default();
    let rename = format!("ALTER SCHEMA {} RENAME TO {name}", quote::ident(schema));
    let renamed = admin.batch_execute(&rename).await;
    renamed.map_err(|e| sql_failure(text::baseline::RESTORING.message(), &e))?;
    Ok(name)
}

/// A file of runtime alterations.
enum File {
    Sql { given: String, text: String },
    Python { path: PathBuf, function: Option<String> },
}

impl File {
    fn parse(project: &Path, given: &str) -> Result<File> {
        use text::baseline as say;
        let (path, function) = match given.rsplit_once(".py:") {
            Some((stem, function)) => (project.join(format!("{stem}.py")), Some(function.to_owned())),
            None => (project.join(given), None),
        };
        let unreadable =
            || Failure::usage(say::RUNTIME_UNREADABLE.with("file", given)).mended_by(say::MEND_RUNTIME);
        let path = path.canonicalize().map_err(|error| unreadable().because(error))?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("py") => Ok(File::Python { path, function }),
            Some("sql") => {
                let text = std::fs::read_to_string(&path).map_err(|error| unreadable().because(error))?;
                Ok(File::Sql { given: given.to_owned(), text })
            }
            _ => Err(unreadable()),
        }
    }

    async fn run(&self, driver: &mut Driver, work: &Workplace<'_>, runner: &Conninfo) -> Result<()> {
        match self {
            File::Python { path, function } => driver.run_file(work, path, function.as_deref()).await,
            File::Sql { given, text: sql } => {
                let session = Session::connect(runner, Limits::patient()).await?;
                let ran = session.batch_execute(sql).await;
                ran.map_err(|e| sql_failure(text::baseline::RUNTIME_FAILED.with("file", given), &e))
            }
        }
    }
}
