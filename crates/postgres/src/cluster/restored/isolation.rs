//! The configuration of a restored server: what keeps it apart from the cluster that it is a copy of.

use std::path::{Path, PathBuf};

use super::super::install::Installation;
use super::super::{files, settings};
use super::{PORT, Scratch};
use crate::Result;
use crate::wal::Lsn;

/// Preloaded libraries that start jobs on their own: in a copy they would run the jobs of production. The
/// names are those of `shared_preload_libraries`.
pub const JOB_LIBRARIES: [&str; 7] =
    ["pg_cron", "pg_partman_bgw", "pglogical", "spock", "bdr", "pg_squeeze", "pg_net"];

/// What the server of a restored cluster is told.
#[derive(Clone, Debug, Default)]
pub struct RestoredSettings {
    /// Whether it recovers from the archive (`recovery.signal`), or only starts.
    pub recover: bool,
    /// `restore_command` and `recovery_target…`.
    pub recovery: Vec<(String, String)>,
    /// Whether it answers while it is in recovery (`hot_standby`): it has to, in order to pause.
    pub answers_in_recovery: bool,
    /// `max_connections` and the like, which must not be lower than they were.
    pub at_least: Vec<(String, u32)>,
    /// Libraries to preload; those in [`JOB_LIBRARIES`] and those that are not installed are left out.
    pub preload: Vec<String>,
    /// The WAL that will be replayed, from and to, as far as that is known: for the progress.
    pub replay: Option<(Lsn, Lsn)>,
}

impl RestoredSettings {
    pub(super) fn replay_bytes(&self) -> Option<u64> {
        self.replay.map(|(from, to)| to.bytes_since(from))
    }

    /// The libraries that are preloaded on an installation.
    pub fn preloaded(&self, installation: &Installation) -> Vec<String> {
        let wanted = self
            .preload
            .iter()
            .filter(|library| !JOB_LIBRARIES.contains(&library.as_str()) && installation.has_module(library));
        wanted.cloned().collect()
    }

    fn all(&self, installation: &Installation, socket_dir: &Path, name: &str) -> Vec<(String, String)> {
        let listening = settings::Listening { socket_dir, port: PORT, loopback: false };
        let mut all = settings::base(name, listening, false);
        let mut add = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
        for (name, value) in APART {
            add(name, value);
        }
        if installation.major >= 15 {
            add("log_startup_progress_interval", "500ms");
        }
        if installation.major >= 17 {
            add("event_triggers", "off");
        }
        add("hot_standby", if self.answers_in_recovery { "on" } else { "off" });
        let preloaded = self.preloaded(installation);
        if preloaded.iter().any(|library| library == "timescaledb") {
            // Its tables cannot be read without it; its jobs and its reports to its makers stay off.
            add("timescaledb.max_background_workers", "0");
            add("timescaledb.telemetry_level", "off");
        }
        add("shared_preload_libraries", &preloaded.join(","));
        // A dump locks every table.
        let mut locks = 256;
        for (name, value) in &self.at_least {
            if name == "max_locks_per_transaction" {
                locks = locks.max(*value);
            } else {
                add(name, &value.to_string());
            }
        }
        add("max_locks_per_transaction", &locks.to_string());
        all.extend(self.recovery.iter().cloned());
        all
    }
}

/// Nothing goes out, nothing comes in, nothing starts by itself; and it need not survive a crash.
const APART: [(&str, &str); 19] = [
    ("archive_mode", "off"),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("synchronous_standby_names", ""),
    // Subscriptions of the copy would take the changes meant for the original.
    ("max_logical_replication_workers", "0"),
    ("autovacuum", "off"),
    ("unix_socket_permissions", "0700"),
    ("ssl", "off"),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("wal_level", "replica"),
    ("max_wal_size", "4GB"),
    ("lc_messages", "C"),
    ("log_min_messages", "warning"),
    ("log_statement", "none"),
    ("dynamic_shared_memory_type", "mmap"),
];

/// Writes the configuration; returns the arguments that make the server read it and nothing else.
pub(super) fn write(
    scratch: &Scratch,
    installation: &Installation,
    wanted: &RestoredSettings,
    socket_dir: &Path,
) -> Result<Vec<String>> {
    let layout = &scratch.room.layout;
    let owner = scratch.user.owner();
    let all = wanted.all(installation, socket_dir, &layout.cluster_name());
    let configuration = layout.root.join("restored.conf");
    files::write_for(&configuration, &settings::render(&all), 0o600, owner)?;
    // The folder of the socket is closed to everyone else.
    let hba = layout.root.join("restored_hba.conf");
    files::write_for(&hba, "local all all trust\n", 0o600, owner)?;
    let ident = layout.root.join("restored_ident.conf");
    files::write_for(&ident, "", 0o600, owner)?;
    // The server reads this one wherever its configuration is.
    let data = layout.data();
    files::write_for(&data.join("postgresql.auto.conf"), "# Cleared by obyra-db.\n", 0o600, owner)?;
    files::remove(&data.join("standby.signal"))?;
    let signal = data.join("recovery.signal");
    if wanted.recover {
        files::write_for(&signal, "", 0o600, owner)?;
    } else {
        files::remove(&signal)?;
    }
    let argument = |name: &str, path: PathBuf| ["-c".to_owned(), format!("{name}={}", path.display())];
    let arguments = [("config_file", configuration), ("hba_file", hba), ("ident_file", ident)];
    Ok(arguments.into_iter().flat_map(|(name, path)| argument(name, path)).collect())
}
