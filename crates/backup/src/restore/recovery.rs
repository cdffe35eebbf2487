//! Recovery's configuration: what the small files of a restored cluster say.
//!
//! Pure: text in, text out
//! (<https://www.postgresql.org/docs/current/runtime-config-wal.html#RUNTIME-CONFIG-WAL-ARCHIVE-RECOVERY>).

use std::fmt::Write as _;

use obyra_postgres::wal::TimelineId;

use super::control::Control;
use super::files::SmallFile;
use super::plan::Plan;
use crate::repository::manifest::Header;

/// The file of `ALTER SYSTEM`.
pub(crate) const AUTO: &str = "postgresql.auto.conf";
/// The main configuration, where it is in the data directory.
pub(crate) const MAIN: &str = "postgresql.conf";
/// Where the contents of [`AUTO`] are kept as they were.
const AUTO_BEFORE: &str = "postgresql.auto.conf.before-restore";

/// What happens at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// The cluster takes writes, on a new timeline.
    #[default]
    Promote,
    /// The cluster can be read, and recovery goes on to a later target after a restart.
    Pause,
    /// The server stops.
    Shutdown,
}

/// How a restored cluster recovers when somebody starts it.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The command that fetches WAL, with PostgreSQL's `%f` and `%p`.
    pub restore_command: String,
    /// What happens at the target.
    pub action: Action,
    /// Whether the restored cluster archives its WAL as the original did: only where it takes its place.
    pub archiving: bool,
}

/// What the backup says of the cluster's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Configured<'a> {
    /// The contents of `postgresql.auto.conf`, if there is one.
    pub auto: Option<&'a str>,
    /// Whether `postgresql.conf` is in the data directory: Debian keeps it elsewhere.
    pub has_main: bool,
    /// `pg_control`.
    pub control: Option<&'a Control>,
}

impl Recovery {
    /// The settings of recovery along a plan.
    pub fn settings(&self, plan: &Plan) -> Vec<(String, String)> {
        settings(plan, &self.restore_command, self.action)
    }

    /// The files that make a server recover as planned.
    pub fn files(&self, plan: &Plan, configured: &Configured<'_>) -> Vec<SmallFile> {
        let mut ours = self.settings(plan);
        let mut set = |name: &str, value: &str| ours.push((name.to_owned(), value.to_owned()));
        set("primary_conninfo", "");
        set("primary_slot_name", "");
        if !self.archiving {
            set("archive_mode", "off");
        }
        if !configured.has_main {
            for (name, value) in configured.control.into_iter().flat_map(|control| &control.at_least) {
                set(name, &value.to_string());
            }
        }
        let before = configured.auto.unwrap_or_default();
        let mut files = labels(&plan.backup);
        files.push(small("recovery.signal", String::new()));
        files.push(small(AUTO_BEFORE, before.to_owned()));
        files.push(small(AUTO, merged(before, &ours)));
        files
    }
}

/// `backup_label`, word for word. The tablespaces' links are made by the restore: `tablespace_map` would lead
/// recovery to the places that they had.
pub(crate) fn labels(backup: &Header) -> Vec<SmallFile> {
    let label = Some(&backup.backup_label).filter(|label| !label.is_empty());
    label.map(|label| small("backup_label", label.clone())).into_iter().collect()
}

/// The settings of recovery to the plan's stop, by a command.
pub(crate) fn settings(plan: &Plan, restore_command: &str, action: Action) -> Vec<(String, String)> {
    let TimelineId(timeline) = plan.timeline;
    let action = match action {
        Action::Promote => "promote",
        Action::Pause => "pause",
        Action::Shutdown => "shutdown",
    };
    let mut settings = vec![
        ("restore_command".to_owned(), restore_command.to_owned()),
        ("recovery_target_timeline".to_owned(), timeline.to_string()),
        ("recovery_target_action".to_owned(), action.to_owned()),
    ];
    settings.extend(plan.stop.settings());
    settings
}

fn small(path: &str, contents: String) -> SmallFile {
    SmallFile { path: path.to_owned(), contents }
}

/// The settings that were there, less those of earlier recoveries and those that are ours now.
fn merged(before: &str, ours: &[(String, String)]) -> String {
    let is_replaced = |line: &str| {
        let name = line.split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
        name.starts_with("recovery_target") || ours.iter().any(|(our, _)| *our == name)
    };
    let mut out = String::new();
    for line in before.lines().filter(|line| !is_replaced(line.trim_start())) {
        let _ = writeln!(out, "{line}");
    }
    out.push_str("# Recovery, by obyra-db.\n");
    for (name, value) in ours {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        let _ = writeln!(out, "{name} = '{value}'");
    }
    out
}

/// The value of a setting in the text of a configuration file, the last one if there are several. Included
/// files are not followed.
pub(crate) fn value_of(configuration: &str, wanted: &str) -> Option<String> {
    let mut lines = configuration.lines().filter_map(|line| {
        let line = line.trim();
        let (name, rest) = line.split_at(line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?);
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        name.eq_ignore_ascii_case(wanted).then_some(rest)
    });
    let rest = lines.next_back()?;
    let Some(quoted) = rest.strip_prefix('\'') else {
        return Some(rest.split([' ', '\t', '#']).next().unwrap_or_default().to_owned());
    };
    let mut value = String::new();
    let mut chars = quoted.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.peek() == Some(&'\'') => value.extend(chars.next()),
            '\'' => return Some(value),
            '\\' => value.extend(chars.next()),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_before_stay_but_for_recovery_s_own() {
        let before = "# Do not edit this file manually!\nwork_mem = '64MB'\nrecovery_target_name = 'old'\n\
                      Restore_Command = 'old'\narchive_mode = 'on'\n";
        let ours = [
            ("restore_command".to_owned(), r"wal-fetch 'x' \ %f".to_owned()),
            ("archive_mode".to_owned(), "off".to_owned()),
        ];
        assert_eq!(
            merged(before, &ours),
            "# Do not edit this file manually!\nwork_mem = '64MB'\n# Recovery, by obyra-db.\n\
             restore_command = 'wal-fetch ''x'' \\\\ %f'\narchive_mode = 'off'\n"
        );
    }

    #[test]
    fn values_as_the_server_reads_them() {
        let text = "shared_preload_libraries = 'pg_stat_statements, auto_explain' # two\n\
                    #port = 1\nport 5433\n  Max_Connections=200#many\ncluster_name = 'it''s \\'us\\''\nport = 5434\n";
        let value = |name| value_of(text, name);
        assert_eq!(value("shared_preload_libraries").unwrap(), "pg_stat_statements, auto_explain");
        assert_eq!(value("port").unwrap(), "5434");
        assert_eq!(value("max_connections").unwrap(), "200");
        assert_eq!(value("cluster_name").unwrap(), "it's 'us'");
        assert_eq!(value("work_mem"), None);
    }
}
