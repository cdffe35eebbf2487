//! What a cluster's server is told: settings and who may connect, as text.

use std::fmt::Write as _;
use std::path::Path;

/// The file in the data folder that holds our settings; `postgresql.conf` includes it.
pub(super) const FILE: &str = "obyra.conf";

/// The line that includes it. `ALTER SYSTEM` still wins.
pub(super) const INCLUDE: &str =
    "\n# Settings by obyra-db; rewritten at each start.\ninclude = 'obyra.conf'\n";

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listening<'a> {
    pub(super) socket_dir: &'a Path,
    /// Names the socket, and is the loopback port if there is one.
    pub(super) port: u16,
    /// With TLS, on loopback.
    pub(super) loopback: bool,
}

/// The settings of every cluster.
pub(super) fn base(cluster_name: &str, listening: Listening<'_>, statistics: bool) -> Vec<(String, String)> {
    // One address only: with several, a server starts although one of them is taken.
    let addresses = if listening.loopback { "127.0.0.1" } else { "" };
    let mut settings = vec![
        ("cluster_name", cluster_name.to_owned()),
        ("listen_addresses", addresses.to_owned()),
        ("port", listening.port.to_string()),
        ("unix_socket_directories", in_list(&listening.socket_dir.to_string_lossy())),
        ("password_encryption", "scram-sha-256".to_owned()),
        // As the managed providers have it.
        ("timezone", "UTC".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        ("log_line_prefix", "%m [%p] %q%u@%d ".to_owned()),
        ("logging_collector", "off".to_owned()),
    ];
    if statistics {
        settings.push(("shared_preload_libraries", "pg_stat_statements".to_owned()));
    }
    if listening.loopback {
        settings.push(("ssl", "on".to_owned()));
        settings.push(("ssl_min_protocol_version", "TLSv1.2".to_owned()));
    }
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a temporary server does without: it need not survive a crash, and whatever it makes shall
/// go with its folder.
pub(super) fn temporary() -> Vec<(String, String)> {
    [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
        ("dynamic_shared_memory_type", "mmap"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A settings file; the last setting of a name wins.
pub(super) fn render(settings: &[(String, String)]) -> String {
    let mut out = String::new();
    for (name, value) in settings {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        let _ = writeln!(out, "{name} = '{value}'");
    }
    out
}

/// One element of a setting that is a list.
fn in_list(element: &str) -> String {
    format!("\"{}\"", element.replace('"', "\"\""))
}

/// Who may connect: everyone with a password, over the private socket or over TLS on loopback.
pub(super) fn hba(loopback: bool, more: &[String]) -> String {
    let mut out = String::from("# By obyra-db; rewritten at each start.\n");
    for line in more {
        let _ = writeln!(out, "{line}");
    }
    for database in ["all", "replication"] {
        let _ = writeln!(out, "local    {database:<12} all                scram-sha-256");
        if loopback {
            let _ = writeln!(out, "hostssl  {database:<12} all  127.0.0.1/32  scram-sha-256");
            let _ = writeln!(out, "hostssl  {database:<12} all  ::1/128       scram-sha-256");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        let settings = [("a".to_owned(), r"it's \d".to_owned())];
        assert_eq!(render(&settings), "a = 'it''s \\\\d'\n");
    }

    #[test]
    fn folders_with_spaces_and_quotes_survive_the_list() {
        let listening = Listening { socket_dir: Path::new("/a b/\"c\""), port: 5432, loopback: false };
        let settings = base("obyra-1", listening, true);
        let dir = settings.iter().find(|(name, _)| name == "unix_socket_directories").unwrap();
        assert_eq!(dir.1, r#""/a b/""c""""#);
    }

    #[test]
    fn nobody_connects_without_tls_or_password() {
        let text = hba(true, &[]);
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            assert!(line.starts_with("local ") || line.starts_with("hostssl "), "{line}");
            assert!(line.ends_with("scram-sha-256"), "{line}");
        }
        assert!(!hba(false, &[]).contains("host"));
    }
}
