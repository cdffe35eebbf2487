//! The proof both ways: the revision gives the schema, its downgrade gives the empty database again, and where it is
//! stamped on the schema nothing is left to upgrade. Each is seen by a second connection.

use std::collections::BTreeSet;

use obyra_evidence::{Code, Failure, Finding, Severity, text};
use obyra_postgres::{Conninfo, Result, quote};

use super::course::{Course, Source};
use super::image::{Image, catalogue};
use super::{Revision, Site, Truth};
use crate::driver::{Attend, Driver, DriverConnection, Planned, Transaction, UpgradeError};
use crate::explain;
use crate::gate::catalogue::{Change, belongs_to_another, shown};
use crate::gate::stage::Database;
use crate::gate::start;
use crate::observe::{Identity, version_tables};

/// Sees that the application is where it was sent, and what Alembic is about to do there.
pub(super) struct Onlooker {
    identity: Identity,
    role: String,
    planned: Option<Planned>,
}

impl Onlooker {
    pub async fn of(database: &Database) -> Result<Onlooker> {
        let identity = Identity::of(&database.admin).await?;
        Ok(Onlooker { identity, role: database.runner.user().to_owned(), planned: None })
    }
}

impl Attend for Onlooker {
    async fn configured(&mut self, found: Identity) -> Result<()> {
        found.must_be(&self.identity, &self.role)
    }

    async fn planned(&mut self, _: &mut DriverConnection<'_>, planned: &Planned) -> Result<()> {
        self.planned = Some(planned.clone());
        Ok(())
    }
}

/// How an upgrade or a downgrade ended.
enum Ended {
    Well,
    /// A revision raised, which is a finding.
    Badly(String),
}

impl Course<'_> {
    /// Everything that speaks against a revision.
    pub async fn prove(
        &mut self,
        source: &Source,
        revision: &Revision,
        site: &mut impl Site,
    ) -> Result<Vec<Finding>> {
        self.progress.begin(text::baseline::PROVING.message(), None);
        let findings = self.both_ways(source, revision, site).await?;
        if findings.is_empty() {
            self.stamped(source, revision, site).await?;
        }
        self.progress.done();
        Ok(findings)
    }

    async fn both_ways(
        &mut self,
        source: &Source,
        revision: &Revision,
        site: &mut impl Site,
    ) -> Result<Vec<Finding>> {
        use text::baseline as say;
        let finding = |message| Finding::new(Severity::Error, format!("revision {}", revision.id), message);
        let database = self.stage.database(site).await?;
        let empty = self.image(&database).await?;
        if let Some(changes) = self.boot(&database).await? {
            let told = say::BOOT_DDL.with("changes", shown(&changes));
            return Ok(vec![
                Finding::new(Severity::Error, "application", told).mended_by(text::gate::MEND_BOOT_DDL),
            ]);
        }
        if let Ended::Badly(why) = self.up(&database, &revision.id).await? {
            return Ok(vec![finding(say::UPGRADE_FAILED.with("why", why)).mended_by(say::MEND_UPGRADE)]);
        }
        self.stands_at(&database, std::slice::from_ref(&revision.id)).await?;
        let built = self.image(&database).await?;
        let changes = self.differences(&source.image, &built, &empty);
        let mut findings: Vec<Finding> =
            changes.iter().filter(|change| !belongs_to_another(change, &changes)).map(differs).collect();
        match self.down(&database).await? {
            Ended::Badly(why) => findings.push(finding(say::DOWNGRADE_FAILED.with("why", why))),
            Ended::Well => {
                self.stands_at(&database, &[]).await?;
                let changes = self.image(&database).await?.changes_since(&empty, &self.own_tables());
                if !changes.is_empty() {
                    let told = say::DOWNGRADE_DIFFERS.with("changes", shown(&changes));
                    findings.push(finding(told));
                }
            }
        }
        Ok(findings)
    }

    /// The schema as it is, stamped with the revision, has nothing to upgrade.
    async fn stamped(&mut self, source: &Source, revision: &Revision, site: &mut impl Site) -> Result<()> {
        let empty = self.stage.empty().await?;
        source.script.restore(&empty, self.order.schemas).await?;
        let database = self.stage.prepared(site).await?;
        start::hand_over(&database.admin, &database.runner).await?;
        self.driver.connect(&database).await?;
        let mut onlooker = Onlooker::of(&database).await?;
        let ended = self.driver.stamp(&revision.id, &mut onlooker).await;
        self.ended(ended, text::baseline::STAMP_FAILED).await?;
        self.stands_at(&database, std::slice::from_ref(&revision.id)).await?;
        let mut onlooker = Onlooker::of(&database).await?;
        let ended = self.driver.upgrade("head", &mut onlooker).await;
        self.ended(ended, text::baseline::STAMP_FAILED).await?;
        match onlooker.planned.filter(|planned| !planned.revisions.is_empty()) {
            None => Ok(()),
            Some(planned) => Err(Failure::new(text::baseline::STAMP_FAILED).because(format!(
                "{} -> {}",
                planned.current.join(" "),
                planned.revisions.join(" ")
            ))),
        }
    }

    /// What is different in a live database from what the revisions up to one make of an empty database.
    pub async fn compare(&mut self, to: &str, live: &Conninfo, site: &mut impl Site) -> Result<Vec<Finding>> {
        self.progress.begin(text::baseline::COMPARING.message(), None);
        let database = self.stage.database(site).await?;
        let empty = self.image(&database).await?;
        if let Ended::Badly(why) = self.up(&database, to).await? {
            return Err(Failure::new(text::baseline::NOT_BUILT.with("revision", to)).because(why));
        }
        self.stands_at(&database, &[to.to_owned()]).await?;
        let built = self.image(&database).await?;
        let source = self.source(&Truth::Live(Box::new(live.clone())), site).await?;
        let changes = self.differences(&source.image, &built, &empty);
        self.progress.done();
        Ok(changes.iter().filter(|change| !belongs_to_another(change, &changes)).map(differs).collect())
    }

    async fn image(&self, database: &Database) -> Result<Image> {
        let reached = self.stage.reached();
        Image::of((&database.admin, &reached), self.stage.installation(), self.order.schemas).await
    }

    /// From the source to what was built, without what the strategy itself gives.
    fn differences(&self, source: &Image, built: &Image, empty: &Image) -> Vec<Change> {
        let mut changes = built.changes_since(source, &self.own_tables());
        let given = |change: &Change| {
            let now = change.now.as_deref();
            change.before.is_none() && now.is_some() && empty.definition(&change.name) == now
        };
        changes.retain(|change| !given(change));
        changes
    }

    /// The tables of Alembic and obyra-db, wherever they may be.
    fn own_tables(&self) -> BTreeSet<String> {
        let elsewhere = self.order.policy.version_table_schema.iter();
        let schemas = self.order.schemas.iter().chain(elsewhere).map(String::as_str).chain(["public"]);
        let tables = self.order.tables_left_out();
        schemas.flat_map(|schema| tables.iter().map(move |table| quote::qualified(schema, table))).collect()
    }

    /// What merely loading the application changes in an empty database.
    async fn boot(&mut self, database: &Database) -> Result<Option<Vec<Change>>> {
        let work = self.order.workplace(&self.python);
        let before = catalogue(&database.admin).await?;
        self.driver.connect(database).await?;
        self.driver.current(&work).await?;
        let changes = catalogue(&database.admin).await?.changes_since(&before);
        Ok((!changes.is_empty()).then_some(changes))
    }

    async fn up(&mut self, database: &Database, to: &str) -> Result<Ended> {
        self.driver.connect(database).await?;
        let mut onlooker = Onlooker::of(database).await?;
        let ended = self.driver.upgrade(to, &mut onlooker).await;
        self.or_badly(ended).await
    }

    async fn down(&mut self, database: &Database) -> Result<Ended> {
        let mut onlooker = Onlooker::of(database).await?;
        let ended = self.driver.downgrade("base", &mut onlooker).await;
        self.or_badly(ended).await
    }

    /// An error of a revision is told; whatever else ends it is a failure.
    async fn or_badly(&mut self, ended: std::result::Result<Transaction, UpgradeError>) -> Result<Ended> {
        match ended {
            Err(UpgradeError::Complaint(complaint)) if complaint.revision.is_some() => {
                Ok(Ended::Badly(explain::words(&complaint.kind, &complaint.said)))
            }
            ended => self.ended(ended, text::baseline::NOT_DRIVEN).await.map(|()| Ended::Well),
        }
    }

    async fn ended(
        &mut self,
        ended: std::result::Result<Transaction, UpgradeError>,
        what: Code,
    ) -> Result<()> {
        let work = self.order.workplace(&self.python);
        settled(&mut self.driver, ended, (&work, what)).await
    }

    /// A second connection must find the version table so.
    async fn stands_at(&self, database: &Database, revisions: &[String]) -> Result<()> {
        let tables = version_tables(self.order.policy, &database.admin).await?;
        let found: Vec<String> = tables.into_iter().flat_map(|table| table.revisions).collect();
        if found == revisions {
            return Ok(());
        }
        let told = text::baseline::STANDS_ELSEWHERE
            .with("found", if found.is_empty() { "base".to_owned() } else { found.join(" ") })
            .with("expected", if revisions.is_empty() { "base".to_owned() } else { revisions.join(" ") });
        Err(Failure::new(told).mended_by(text::migrations::MEND_NOT_COMMITTED))
    }
}

/// The failure that anything but a committed end amounts to.
pub(crate) async fn settled(
    driver: &mut Driver,
    ended: std::result::Result<Transaction, UpgradeError>,
    (work, what): (&crate::driver::Workplace<'_>, Code),
) -> Result<()> {
    match ended {
        Ok(transaction) if transaction.external && !transaction.committed => {
            Err(explain::silent_rollback(work.project, transaction.began_at.as_ref()))
        }
        Ok(_) => Ok(()),
        Err(UpgradeError::Complaint(complaint)) => {
            let external = complaint.transaction.as_ref().filter(|transaction| transaction.external);
            if let (Some(transaction), "AssertionError") = (external, complaint.kind.as_str()) {
                return Err(explain::silent_rollback(work.project, transaction.began_at.as_ref()));
            }
            Err(driver.explain(work, &complaint).await)
        }
        Err(UpgradeError::Failure(failure)) => Err(failure),
        Err(UpgradeError::TimedOut) => Err(Failure::new(what)),
    }
}

/// One difference, from the source to what the revisions make.
fn differs(change: &Change) -> Finding {
    use text::baseline as say;
    const DEFINITION_CHARS: usize = 200;
    let short = |text: &str| {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars().take(DEFINITION_CHARS).collect::<String>()
    };
    let message = match (&change.before, &change.now) {
        (Some(_), None) => say::NOT_MADE.message(),
        (None, _) => say::MADE_BESIDE.message(),
        (Some(before), Some(now)) => {
            say::MADE_OTHERWISE.with("source", short(before)).with("made", short(now))
        }
    };
    Finding::new(Severity::Error, &change.name, message)
}
