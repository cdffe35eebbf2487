//! A server's processes: which one runs in a data folder, whether it is ready, and how it ends.
//!
//! A process is ours only if it belongs to the server's user and names our data folder; a process
//! number alone proves nothing after a crash.

use std::path::{Path, PathBuf};
use std::time::Duration;

use obyra_evidence::{Failure, text};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::files;
use super::layout::Layout;
use super::processes;
use super::user::ServerUser;
use crate::Result;

/// Between two looks at a condition.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long a server may take to write its last checkpoint.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(120);

/// How long the children of a killed process may take to notice.
pub(super) const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

/// What a running postmaster says of itself in `postmaster.pid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) port: u16,
    pub(super) socket_dir: PathBuf,
    pub(super) ready: bool,
}

impl PidFile {
    /// Reads it; `None` if there is none, or not all of it yet.
    pub(super) fn read(data: &Path) -> Result<Option<PidFile>> {
        Ok(files::read(&data.join("postmaster.pid"))?.as_deref().and_then(PidFile::parse))
    }

    /// Process, data folder, start time, port, socket folder, first address, shared memory, status.
    fn parse(text: &str) -> Option<PidFile> {
        let lines: Vec<&str> = text.lines().collect();
        let [pid, _, _, port, socket_dir, ..] = lines[..] else { return None };
        Some(PidFile {
            pid: pid.trim().parse().ok()?,
            port: port.trim().parse().ok()?,
            socket_dir: socket_dir.into(),
            ready: lines.get(7).is_some_and(|status| status.trim() == "ready"),
        })
    }
}

/// How a server is told to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// Rolls back what is open and writes a checkpoint.
    Fast,
    /// At once, as if the machine had failed.
    Immediate,
}

/// The running server of this cluster, if there is one.
pub(super) fn running(layout: &Layout, user: &ServerUser) -> Result<Option<PidFile>> {
    let found = PidFile::read(&layout.data())?;
    Ok(found.filter(|file| processes::is_postmaster(file.pid, &layout.data(), user)))
}

/// Ends the running server and waits for it; says whether one ran.
pub(super) async fn stop(layout: &Layout, user: &ServerUser, how: Stop) -> Result<bool> {
    let Some(file) = running(layout, user)? else { return Ok(false) };
    let signal = match how {
        Stop::Fast => Signal::INT,
        Stop::Immediate => Signal::QUIT,
    };
    kill(file.pid, signal, layout)?;
    let data = layout.data();
    let gone = || !processes::is_postmaster(file.pid, &data, user);
    if wait_until(gone, STOP_LIMIT).await {
        return Ok(true);
    }
    let what =
        text::cluster::STOP_TIMEOUT.with("path", layout.root.display()).with("seconds", STOP_LIMIT.as_secs());
    Err(Failure::new(what)
        .because(files::log_since(&layout.log(), 0, 5))
        .mended_by(text::cluster::STOP_TIMEOUT_MEND.with("log", layout.log().display())))
}

/// Clears what a killed server left: its orphaned children, then its `postmaster.pid`, whose
/// process number may belong to someone else by now. To be called when no postmaster runs.
pub(super) async fn clear_remains(layout: &Layout, user: &ServerUser) -> Result<()> {
    let pid_file = layout.data().join("postmaster.pid");
    if !pid_file.exists() {
        return Ok(());
    }
    let name = layout.cluster_name();
    let alone = || processes::children(&name, user).is_empty();
    if !wait_until(alone, ORPHAN_LIMIT).await {
        // One is in the middle of a long statement, whose result nobody will see.
        for pid in processes::children(&name, user) {
            kill(pid, Signal::QUIT, layout)?;
        }
        wait_until(alone, ORPHAN_LIMIT).await;
    }
    files::remove(&pid_file)
}

/// Sends a signal; a process that is gone already is no failure.
pub(super) fn kill(pid: u32, signal: Signal, layout: &Layout) -> Result<()> {
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match kill_process(target, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => {
            let what = text::cluster::CANNOT_STOP.with("pid", pid).with("path", layout.root.display());
            Err(Failure::new(what)
                .because(error)
                .mended_by(text::cluster::PERMISSION_MEND.with("path", layout.root.display())))
        }
    }
}

/// Looks until the condition holds; says whether it came to hold in time.
pub(super) async fn wait_until(condition: impl Fn() -> bool, limit: Duration) -> bool {
    let begun = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if begun.elapsed() > limit {
            return false;
        }
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_in_all_its_states() {
        let ready = "4711\n/d/data\n1700000000\n5433\n/d/socket\n127.0.0.1\n  1 2\nready   \n";
        let file = PidFile::parse(ready).unwrap();
        assert_eq!((file.pid, file.port, file.ready), (4711, 5433, true));
        assert_eq!(file.socket_dir, Path::new("/d/socket"));
        assert!(!PidFile::parse(&ready.replace("ready   ", "starting")).unwrap().ready);
        assert!(!PidFile::parse("4711\n/d/data\n1700000000\n5433\n/d/socket\n").unwrap().ready);
        assert_eq!(PidFile::parse("4711\n"), None);
        assert_eq!(PidFile::parse(""), None);
    }
}
