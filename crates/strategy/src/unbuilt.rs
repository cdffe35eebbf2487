//! What the file may already declare although nothing obeys it yet. `check` reports these
//! lines as unknown instead of green. Whoever builds a capability deletes its rows.

use obyra_continuity::LineId;

use crate::environment::Environment;

/// A part of the strategy whose capability is not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBuilt {
    /// The line of the strategy that therefore stays unknown.
    pub line: LineId,
    /// The section of the file that declares it: `backup.pitr`.
    pub section: &'static str,
}

/// A line, the section that declares it, and whether an environment asks for it.
type Row = (LineId, &'static str, fn(&Environment) -> bool);

/// The rows that stand for keys of the environment itself, not for sections.
const OWN_KEYS: [&str; 2] = ["high_availability", "networks"];

const NOT_BUILT: &[Row] = &[
    (LineId::HighAvailability, "high_availability", |e| e.high_availability || e.replica.is_some()),
    (LineId::Networks, "networks", |e| !e.networks.is_empty()),
    (LineId::Credentials, "secrets.store", |e| e.secrets.store.is_remote()),
    (LineId::Rotation, "secrets.rotation", |_| true),
    (LineId::Monitoring, "monitor", |e| e.monitor.enabled),
    (LineId::Alerts, "alerts", |e| e.monitor.enabled),
    (LineId::AnonymisedCopies, "anonymize", |e| e.anonymize.from.is_some()),
];

/// What this environment declares and nothing obeys yet.
pub fn not_built(environment: &Environment) -> Vec<NotBuilt> {
    NOT_BUILT
        .iter()
        .filter(|(_, section, asked)| {
            let top = section.split('.').next().unwrap_or(section);
            (OWN_KEYS.contains(&top) || environment.declares(top)) && asked(environment)
        })
        .map(|(line, section, _)| NotBuilt { line: *line, section })
        .collect()
}
