//! How far recovery goes: what a person asks for, and the exact point that it comes to.

use std::fmt;

use jiff::{Timestamp, Zoned};
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::Lsn;
use serde::Serialize;

use crate::Result;
use crate::repository::layout::BackupId;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everything that the archive has.
    Latest,
    /// The state at a moment: everything that had been committed by then.
    Time(Timestamp),
    /// The state when the server's write-ahead log had come to this position: everything before it.
    Lsn(Lsn),
    /// A restore point, `pg_create_restore_point`.
    Name(String),
    /// A transaction, and everything that was committed before it.
    Transaction(u32),
    /// The end of a backup: the least that makes it whole.
    Backup(BackupId),
}

impl Target {
    /// Reads what a person writes: `latest`, `2026-11-24 02:13:05-03`, `0/3000148`, `backup:ID`,
    /// `name:before-the-upgrade`, `xid:715`.
    pub fn parse(text: &str) -> Result<Target> {
        let text = text.trim();
        let malformed = || {
            Failure::usage(text::backup::RESTORE_TARGET_MALFORMED.with("text", text.escape_debug()))
                .mended_by(text::backup::RESTORE_TARGET_MALFORMED_MEND)
        };
        if text == "latest" {
            return Ok(Target::Latest);
        }
        if let Some(name) = text.strip_prefix("name:") {
            // pg_create_restore_point takes no more.
            let fits = !name.is_empty() && name.len() < 64;
            return fits.then(|| Target::Name(name.to_owned())).ok_or_else(malformed);
        }
        if let Some(id) = text.strip_prefix("backup:") {
            return id.parse().map(Target::Backup).map_err(|_| malformed());
        }
        if let Some(xid) = text.strip_prefix("xid:") {
            return xid.parse().map(Target::Transaction).map_err(|_| malformed());
        }
        if let Ok(lsn) = text.parse() {
            return Ok(Target::Lsn(lsn));
        }
        if let Ok(id) = text.parse() {
            return Ok(Target::Backup(id));
        }
        if let Some(time) = time(text) {
            return Ok(Target::Time(time));
        }
        if text.parse::<jiff::civil::DateTime>().is_ok() {
            return Err(Failure::usage(text::backup::RESTORE_TARGET_WITHOUT_ZONE.with("text", text))
                .mended_by(text::backup::RESTORE_TARGET_WITHOUT_ZONE_MEND.with("text", text)));
        }
        Err(malformed())
    }
}

/// With an offset (`-03`, `Z`), or a zone's name in brackets.
fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| text.parse::<Zoned>().ok().map(|zoned| zoned.timestamp()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Latest => f.write_str("latest"),
            Target::Time(time) => f.write_str(&shown(*time)),
            Target::Lsn(lsn) => lsn.fmt(f),
            Target::Name(name) => write!(f, "name:{name}"),
            Target::Transaction(xid) => write!(f, "xid:{xid}"),
            Target::Backup(id) => write!(f, "backup:{id}"),
        }
    }
}

/// Where replay stops. Names and transactions have been found in the log by now, so that none of them
/// can be missed or mistaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// At the end of the archive.
    End,
    /// As soon as the backup is whole.
    Consistent,
    /// Before the first commit after this moment.
    At(Timestamp),
    /// Before the record at this position, or the first one after it.
    Before(Lsn),
    /// After the record at this position.
    After(Lsn),
}

impl Stop {
    /// The settings `recovery_target…` that say so
    /// (<https://www.postgresql.org/docs/current/runtime-config-wal.html#RUNTIME-CONFIG-WAL-RECOVERY-TARGET>).
    pub fn settings(self) -> Vec<(String, String)> {
        let settings = match self {
            Stop::End => Vec::new(),
            Stop::Consistent => vec![("recovery_target", "immediate".to_owned())],
            Stop::At(time) => vec![("recovery_target_time", shown(time))],
            Stop::Before(lsn) => vec![
                ("recovery_target_lsn", lsn.to_string()),
                ("recovery_target_inclusive", "off".to_owned()),
            ],
            Stop::After(lsn) => vec![("recovery_target_lsn", lsn.to_string())],
        };
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A moment as PostgreSQL and people both read it, in UTC: `2026-11-24 05:13:05.25+00`. The server's clock
/// counts microseconds.
pub(crate) fn shown(time: Timestamp) -> String {
    let text = time.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}+00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_as_people_write_them() {
        for (text, target) in [
            ("latest", "latest"),
            ("2026-11-24 02:13:05-03", "2026-11-24 05:13:05+00"),
            (" 2026-11-24T02:13:05.25Z ", "2026-11-24 02:13:05.25+00"),
            ("2026-11-24T00:00[America/Argentina/Buenos_Aires]", "2026-11-24 03:00:00+00"),
            ("2026-11-24 02:10:00+05:30", "2026-11-23 20:40:00+00"),
            ("0/30001a8", "0/30001A8"),
            ("name:before the upgrade", "name:before the upgrade"),
            ("xid:715", "xid:715"),
            ("backup:20261124T030000Z-00ab", "backup:20261124T030000Z-00ab"),
            ("20261124T030000Z-00ab", "backup:20261124T030000Z-00ab"),
        ] {
            let parsed = Target::parse(text).unwrap();
            assert_eq!(parsed.to_string(), target, "{text}");
            assert_eq!(Target::parse(&parsed.to_string()).unwrap(), parsed);
        }
    }

    #[test]
    fn a_time_without_a_zone_is_asked_for_one() {
        let failure = Target::parse("2026-11-24 02:13:05").unwrap_err();
        assert_eq!(failure.what.code().id(), "backup.restore-target-without-zone");
        for bad in ["", "yesterday", "name:", "xid:-1", "backup:x", "2026-13-24 02:13:05Z", "0/"] {
            let failure = Target::parse(bad).unwrap_err();
            assert_eq!(failure.what.code().id(), "backup.restore-target-malformed", "{bad}");
        }
    }

    #[test]
    fn each_stop_has_its_settings() {
        let say = |stop: Stop| {
            let settings = stop.settings();
            settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(say(Stop::End), "");
        assert_eq!(say(Stop::Consistent), "recovery_target=immediate");
        let time = "2026-11-24T02:13:05.000001-03:00".parse().unwrap();
        assert_eq!(say(Stop::At(time)), "recovery_target_time=2026-11-24 05:13:05.000001+00");
        assert_eq!(say(Stop::Before(Lsn(16))), "recovery_target_lsn=0/10 recovery_target_inclusive=off");
        assert_eq!(say(Stop::After(Lsn(16))), "recovery_target_lsn=0/10");
    }
}
