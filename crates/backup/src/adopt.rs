//! An existing pgBackRest repository, read only: which backups it has and how old they are, so that the
//! checklist is true from the first day.
//!
//! pgBackRest itself is asked (`info --output=json`, <https://pgbackrest.org/command.html>): it knows its
//! repository's keys and format.

use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::policy::PgBackRest;

/// A backup that pgBackRest took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adopted {
    /// Its label: `20261124-030000F_20261124-120000I`.
    pub label: String,
    /// `full`, `diff` or `incr`.
    pub kind: String,
    /// When it was complete.
    pub stopped: Timestamp,
    /// Bytes of the cluster.
    pub bytes: u64,
    /// Whether pgBackRest found damaged pages in it.
    pub damaged: bool,
}

/// Asks pgBackRest for the backups of a stanza, oldest first.
pub async fn adopted(stanza: &PgBackRest) -> Result<Vec<Adopted>> {
    let mut command = program();
    if let Some(config) = &stanza.config {
        command.arg("--config").arg(config);
    }
    command.arg("--stanza").arg(&stanza.stanza).args(["--output=json", "info"]).kill_on_drop(true);
    let what = || text::backup::PGBACKREST.with("stanza", &stanza.stanza);
    let output = command.output().await;
    let output =
        output.map_err(|e| Failure::new(what()).because(e).mended_by(text::backup::PGBACKREST_MEND))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(what()).because(said.trim().lines().next_back().unwrap_or("").trim()));
    }
    parse(&output.stdout, &stanza.stanza).map_err(|why| Failure::new(what()).because(why))
}

#[expect(clippy::disallowed_methods, reason = "the one place that runs pgBackRest")]
fn program() -> tokio::process::Command {
    tokio::process::Command::new("pgbackrest")
}

#[derive(Deserialize)]
struct Stanza {
    name: String,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    backup: Vec<Backup>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Backup {
    label: String,
    #[serde(rename = "type")]
    kind: String,
    timestamp: Span,
    info: Info,
    #[serde(default)]
    error: Option<bool>,
}

#[derive(Deserialize)]
struct Span {
    stop: i64,
}

#[derive(Deserialize)]
struct Info {
    size: u64,
}

/// Status codes that mean that there is no backup yet: no stanza path, no valid backups.
const NONE_YET: [i64; 3] = [1, 2, 3];

fn parse(json: &[u8], wanted: &str) -> std::result::Result<Vec<Adopted>, String> {
    let stanzas: Vec<Stanza> = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let stanza = stanzas.into_iter().find(|stanza| stanza.name == wanted);
    let Some(stanza) = stanza else { return Err(format!("no stanza {wanted}")) };
    // Others are failures of one of its repositories: what it does list would look like all there is.
    if stanza.status.code != 0 && !NONE_YET.contains(&stanza.status.code) {
        return Err(stanza.status.message);
    }
    let mut adopted = Vec::new();
    for backup in stanza.backup {
        let stopped = Timestamp::from_second(backup.timestamp.stop).map_err(|e| e.to_string())?;
        adopted.push(Adopted {
            label: backup.label,
            kind: backup.kind,
            stopped,
            bytes: backup.info.size,
            damaged: backup.error == Some(true),
        });
    }
    adopted.sort_by_key(|backup| backup.stopped);
    Ok(adopted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As pgBackRest writes it, shortened.
    const INFO: &str = r#"[{"archive":[{"database":{"id":1,"repo-key":1},"id":"16-1","max":"00000001000000000000000A",
        "min":"000000010000000000000001"}],"backup":[
        {"archive":{"start":"000000010000000000000009","stop":"00000001000000000000000A"},"backrest":{"format":5,
        "version":"2.59.1"},"database":{"id":1,"repo-key":1},"error":true,"info":{"delta":400,"repository":{"delta":4,
        "size":5},"size":3000},"label":"20261124-030000F_20261124-120000I","prior":"20261124-030000F",
        "timestamp":{"start":1795780800,"stop":1795780860},"type":"incr"},
        {"error":false,"info":{"size":2000},"label":"20261124-030000F","timestamp":{"start":1,"stop":1795748460},
        "type":"full"}],"cipher":"aes-256-cbc","name":"main","status":{"code":0,"lock":{"backup":{"held":false}},
        "message":"ok"}}]"#;

    #[test]
    fn what_pgbackrest_tells() {
        let adopted = parse(INFO.as_bytes(), "main").unwrap();
        let shown: Vec<_> = adopted.iter().map(|a| (a.kind.as_str(), a.bytes, a.damaged)).collect();
        assert_eq!(shown, [("full", 2000, false), ("incr", 3000, true)]);
        assert!(parse(INFO.as_bytes(), "other").unwrap_err().contains("other"));
        let broken = INFO.replace("\"code\":0", "\"code\":99").replace("\"ok\"", "\"other\"");
        assert_eq!(parse(broken.as_bytes(), "main").unwrap_err(), "other");
        assert!(parse(b"", "main").is_err());
    }
}
