//! A temporary server on a restored and recovered copy of a cluster: for drills, and for bringing back one
//! table or one database.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use obyra_evidence::Progress;
use obyra_postgres::cluster::{Installation, Restored, RestoredOptions, RestoredSettings, Scratch};

use super::control::{self, Control};
use super::feed::Feeder;
use super::files::{Restore, Written};
use super::place::{Into, Place, read_some};
use super::plan::Plan;
use super::recovery::{self, Action};
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::Manifest;
use crate::repository::layout::ClusterId;

/// More than any configuration file has.
const CONFIGURATION_BYTES_MAX: usize = 16 << 20;

/// Where temporary servers are raised, and of what.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The cluster in it.
    pub cluster: ClusterId,
    /// Programs of the cluster's major version.
    pub installation: &'a Installation,
    /// The folder with room for it; that of temporary files if absent.
    pub scratch: Option<&'a Path>,
    /// A superuser of the cluster. Drills prefer the one that was recorded with the backup.
    pub superuser: &'a str,
    /// Threads that restore.
    pub threads: usize,
    /// The databases whose files are needed, by their oids; all, if absent. The files of the others are
    /// holes.
    pub databases: Option<&'a BTreeSet<u32>>,
}

/// A temporary server. Ends with this value, and takes its files along.
#[derive(Debug)]
pub struct Instance {
    /// The server.
    pub restored: Restored,
    /// What restoring took.
    pub timed: Timed,
    /// Libraries that the cluster preloads and this server does not.
    pub left_out: Vec<String>,
    settings: RestoredSettings,
    feeder: Feeder,
}

/// What restoring a cluster took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timed {
    /// What was written.
    pub written: Written,
    /// How long the files took.
    pub files: Duration,
    /// How long recovery took, with the start of the server.
    pub replay: Duration,
}

impl Stage<'_> {
    /// Restores the plan's backup, and recovers it to the plan's target.
    pub async fn raise(
        &self,
        plan: &Plan,
        manifest: &Arc<Manifest>,
        action: Action,
        progress: &dyn Progress,
    ) -> Result<Instance> {
        let scratch = Scratch::claim(self.scratch).await?;
        let begun = Instant::now();
        let written = self.restore(&scratch, manifest, progress).await?;
        let files = begun.elapsed();

        let folder = scratch.make_folder("wal")?;
        let feeder = Feeder::start(self.repository, self.cluster, plan.segment_size, folder)?;
        let data = scratch.data();
        let control = read_some(&data.join(control::PATH), 8192)?;
        let control = control.as_deref().and_then(Control::parse);
        let at_least = control.into_iter().flat_map(|control| control.at_least);
        let settings = RestoredSettings {
            recover: true,
            recovery: recovery::settings(plan, &feeder.command(), action),
            answers_in_recovery: action == Action::Pause,
            at_least: at_least.map(|(name, value)| (name.to_owned(), value)).collect(),
            preload: preloads(&data)?,
            replay: Some((plan.replay.from, plan.replay.to)),
        };
        let preloaded = settings.preloaded(self.installation);
        let left_out = settings.preload.iter().filter(|library| !preloaded.contains(library));
        let left_out = left_out.cloned().collect();
        let superuser = self.superuser.to_owned();
        let options = RestoredOptions { superuser, settings: settings.clone() };
        let begun = Instant::now();
        let restored = Restored::start(scratch, self.installation, &options, progress).await;
        let restored = restored.map_err(|failure| feeder.failure().unwrap_or(failure))?;
        let timed = Timed { written, files, replay: begun.elapsed() };
        Ok(Instance { restored, timed, left_out, settings, feeder })
    }

    async fn restore(
        &self,
        scratch: &Scratch,
        manifest: &Arc<Manifest>,
        progress: &dyn Progress,
    ) -> Result<Written> {
        let place = Place::look(manifest, &Into { data: scratch.data(), ..Into::default() })?;
        let restore = Restore {
            repository: self.repository.clone(),
            cluster: self.cluster,
            small: recovery::labels(&manifest.header),
            manifest: manifest.clone(),
            place,
            threads: self.threads,
            databases: self.databases.cloned(),
        };
        restore.run(progress).await
    }
}

impl Instance {
    /// Recovers a server that has paused further, to the target of another plan of the same backup.
    pub async fn go_on(self, plan: &Plan, action: Action, progress: &dyn Progress) -> Result<Instance> {
        let Instance { restored, mut timed, left_out, mut settings, feeder } = self;
        settings.recovery = recovery::settings(plan, &feeder.command(), action);
        settings.answers_in_recovery = action == Action::Pause;
        settings.replay = Some((plan.replay.from, plan.replay.to));
        let begun = Instant::now();
        let restored = restored.go_on(&settings, progress).await;
        let restored = restored.map_err(|failure| feeder.failure().unwrap_or(failure))?;
        timed.replay += begun.elapsed();
        Ok(Instance { restored, timed, left_out, settings, feeder })
    }
}

/// The libraries that the restored configuration preloads.
fn preloads(data: &Path) -> Result<Vec<String>> {
    let mut found = String::new();
    for file in [recovery::MAIN, recovery::AUTO] {
        let text = read_some(&data.join(file), CONFIGURATION_BYTES_MAX)?.unwrap_or_default();
        let value = recovery::value_of(&String::from_utf8_lossy(&text), "shared_preload_libraries");
        found = value.unwrap_or(found);
    }
    let names = found.split(',').map(|name| name.trim().trim_matches('"').to_owned());
    Ok(names.filter(|name| !name.is_empty()).collect())
}
