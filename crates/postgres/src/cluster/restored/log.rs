//! What a recovering server says in its log, as facts; and what its last words mean.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, text};

use super::super::files;
use crate::Result;
use crate::wal::{Lsn, TimelineId};

/// Lines of the log that a failure shows.
const LAST_WORDS: usize = 8;

/// What a server said of its recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Where replay began.
    pub redo_from: Option<Lsn>,
    /// Where the cluster became consistent.
    pub consistent_at: Option<Lsn>,
    /// How far replay has come: its end, once it ended.
    pub redo_to: Option<Lsn>,
    /// When the last transaction that was replayed was committed, in the server's words, in UTC.
    pub last_commit: Option<String>,
    /// Why it stopped, in the server's words; nothing at the end of the log.
    pub stopped: Option<String>,
    /// The timeline that began with the end of recovery.
    pub new_timeline: Option<TimelineId>,
    /// Whether it paused at its target.
    pub paused: bool,
    /// Its last lines, and whatever was fatal.
    last_words: Vec<String>,
}

impl Told {
    fn line(&mut self, line: &str) {
        let Some((_, said)) = line.split_once("LOG:  ") else {
            self.remember(line);
            return;
        };
        let position = |text: &str| {
            text.split_whitespace().next().and_then(|word| word.trim_end_matches(',').parse().ok())
        };
        if let Some(rest) = said.strip_prefix("redo starts at ") {
            self.redo_from = position(rest);
        } else if let Some(rest) = said.strip_prefix("consistent recovery state reached at ") {
            self.consistent_at = position(rest);
        } else if let Some(rest) = said.strip_prefix("redo done at ") {
            self.redo_to = position(rest);
        } else if let Some((_, rest)) = said.split_once("current LSN: ") {
            self.redo_to = position(rest);
        } else if let Some(rest) = said.strip_prefix("last completed transaction was at log time ") {
            self.last_commit = Some(rest.trim().to_owned());
        } else if said.starts_with("recovery stopping ") {
            self.stopped = Some(said.trim().to_owned());
        } else if let Some(rest) = said.strip_prefix("selected new timeline ID: ") {
            self.new_timeline = rest.trim().parse().ok().map(TimelineId);
        } else if said.starts_with("pausing at the end of recovery") {
            self.paused = true;
        }
        self.remember(line);
    }

    fn remember(&mut self, line: &str) {
        if self.last_words.len() == LAST_WORDS {
            // What was fatal stays; the lines around it go.
            let least = self.last_words.iter().position(|line| !is_fatal(line)).unwrap_or(0);
            self.last_words.remove(least);
        }
        self.last_words.push(line.to_owned());
    }

    /// Why a server that ended did so.
    pub(super) fn failure(&self, status: &str) -> Failure {
        let fatal: Vec<&str> =
            self.last_words.iter().filter(|line| is_fatal(line)).map(String::as_str).collect();
        let said = if fatal.is_empty() { self.last_words.join("\n") } else { fatal.join("\n") };
        let said = if said.is_empty() { status.to_owned() } else { said };
        let all = self.last_words.join("\n");
        let meaning = MEANINGS.iter().find(|(words, _)| all.contains(words));
        let failure = Failure::new(text::cluster::RECOVERY_FAILED.message()).because(&said);
        match meaning {
            Some((_, mend)) => failure.mended_by(*mend),
            None => failure,
        }
    }
}

fn is_fatal(line: &str) -> bool {
    ["FATAL:  ", "PANIC:  ", "HINT:  ", "DETAIL:  "].iter().any(|level| line.contains(level))
}

/// The server's words, and what mends it.
const MEANINGS: [(&str, obyra_evidence::Code); 9] = [
    ("could not locate required checkpoint record", text::cluster::RECOVERY_WITHOUT_WAL_MEND),
    ("recovery ended before configured recovery target was reached", text::cluster::RECOVERY_TOO_SHORT_MEND),
    ("WAL ends before end of online backup", text::cluster::RECOVERY_WITHOUT_WAL_MEND),
    ("stop point is before consistent recovery point", text::cluster::RECOVERY_TOO_EARLY_MEND),
    ("is not a child of this server's history", text::cluster::RECOVERY_TIMELINE_MEND),
    ("WAL contains references to invalid pages", text::cluster::RECOVERY_INVALID_PAGES_MEND),
    ("could not access file", text::cluster::RECOVERY_LIBRARY_MEND),
    ("resource manager with ID", text::cluster::RECOVERY_LIBRARY_MEND),
    ("No space left on device", text::cluster::RECOVERY_DISK_FULL_MEND),
];

/// Follows a log.
pub(super) struct Reader {
    path: PathBuf,
    at: u64,
    half: Vec<u8>,
    told: Told,
    /// How far the progress was told.
    shown: Lsn,
}

impl Reader {
    pub(super) fn new(path: &Path, from: u64) -> Reader {
        Reader { path: path.to_path_buf(), at: from, half: Vec::new(), told: Told::default(), shown: Lsn(0) }
    }

    /// Reads what is new; returns the bytes of WAL that were replayed since.
    pub(super) fn read(&mut self) -> Result<u64> {
        let mut fresh = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.at))?;
            file.read_to_end(&mut fresh)
        });
        self.at += read.map_err(|e| files::failed(&self.path, &e))? as u64;
        self.half.append(&mut fresh);
        if let Some(end) = self.half.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.half.split_off(end + 1);
            let lines = std::mem::replace(&mut self.half, rest);
            String::from_utf8_lossy(&lines).lines().for_each(|line| self.told.line(line));
        }
        let start = self.told.redo_from.unwrap_or_default().max(self.shown);
        let to = self.told.redo_to.unwrap_or(start).max(start);
        self.shown = to;
        Ok(to.bytes_since(start))
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    pub(super) fn into_told(self) -> Told {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(log: &str) -> Told {
        let mut told = Told::default();
        log.lines().for_each(|line| told.line(line));
        told
    }

    #[test]
    fn a_recovery_to_a_target() {
        let told = told(
            "2026-11-24 09:00:00.000 UTC [7] LOG:  starting point-in-time recovery to WAL location (LSN) \"0/5000000\"
2026-11-24 09:00:00.000 UTC [7] LOG:  redo starts at 0/2000028
2026-11-24 09:00:00.000 UTC [7] LOG:  consistent recovery state reached at 0/2000120
2026-11-24 09:00:10.000 UTC [7] LOG:  redo in progress, elapsed time: 10.00 s, current LSN: 0/3000000
2026-11-24 09:00:12.000 UTC [7] LOG:  recovery stopping before commit of transaction 740, time 2026-11-24 08:59:00.1+00
2026-11-24 09:00:12.000 UTC [7] LOG:  redo done at 0/4FFFFD0 system usage: CPU: user: 0.00 s
2026-11-24 09:00:12.000 UTC [7] LOG:  last completed transaction was at log time 2026-11-24 08:58:59.5+00
2026-11-24 09:00:12.000 UTC [7] LOG:  selected new timeline ID: 2",
        );
        assert_eq!(told.redo_from, Some(Lsn(0x200_0028)));
        assert_eq!(told.consistent_at, Some(Lsn(0x200_0120)));
        assert_eq!(told.redo_to, Some(Lsn(0x4FF_FFD0)));
        assert_eq!(told.last_commit.as_deref(), Some("2026-11-24 08:58:59.5+00"));
        assert_eq!(told.new_timeline, Some(TimelineId(2)));
        assert!(told.stopped.unwrap().contains("transaction 740"));
        assert!(!told.paused);
    }

    #[test]
    fn the_last_words_are_explained() {
        let mut log = "2026 [7] LOG:  restored log file\n".repeat(30);
        log.push_str("2026 [7] FATAL:  recovery ended before configured recovery target was reached\n");
        log.push_str(&"2026 [7] LOG:  shutting down\n".repeat(9));
        let failure = told(&log).failure("exit status: 1");
        let why = "2026 [7] FATAL:  recovery ended before configured recovery target was reached";
        assert_eq!(failure.why.as_deref(), Some(why));
        assert_eq!(failure.mend.unwrap().code().id(), "cluster.recovery-too-short-mend");
        assert_eq!(told("").failure("signal: 9").why.as_deref(), Some("signal: 9"));
    }
}
