//! What is wanted: the `[runbook]` section of the strategy file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use obyra_evidence::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who does what, within which time, when the database fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Runbook {
    /// Recovery time objective: how long the service may be down, for example "4 hours".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto: Option<HumanDuration>,
    /// Recovery point objective: how much of the newest data may be lost, for example "15 min".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo: Option<HumanDuration>,
    /// The people responsible.
    pub people: Vec<Person>,
    /// The severities of an incident by name, for example "sev1", with their response times.
    pub severities: BTreeMap<String, IncidentSeverity>,
    /// Who is told what, and where.
    pub communication: Communication,
    /// Where the emergency credentials are kept: a reference such as "vault:obyra/break-glass" or
    /// "safe in the office, envelope 3". Never the credentials themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency_credentials: Option<String>,
    /// The runbook document with the incidents, relative to the strategy file.
    pub document: PathBuf,
}

impl Default for Runbook {
    fn default() -> Self {
        Runbook {
            rto: None,
            rpo: None,
            people: Vec::new(),
            severities: BTreeMap::new(),
            communication: Communication::default(),
            emergency_credentials: None,
            document: PathBuf::from("docs/runbook_db.md"),
        }
    }
}

/// Somebody who is responsible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The name, or the name of a team.
    pub name: String,
    /// What they do in an incident, for example "DBA" or "incident lead".
    pub role: String,
    /// How they are reached: a telephone number, an address, a pager.
    pub contact: String,
    /// Whether they are on call.
    #[serde(default)]
    pub on_call: bool,
}

/// How grave an incident is, and how soon somebody answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IncidentSeverity {
    /// When an incident has this severity, for example "the application is down".
    pub when: String,
    /// Within which time somebody works on it.
    pub respond_within: HumanDuration,
}

/// The communication plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Communication {
    /// Where the team talks during an incident, for example "#db-incidents".
    pub channels: Vec<String>,
    /// Who else is told, for example "clients, through the status page".
    pub informed: Vec<String>,
    /// How often the state is told while an incident lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_every: Option<HumanDuration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_section_is_read() {
        let runbook: Runbook = toml::from_str(
            r##"
            rto = "4 hours"
            rpo = "15 min"
            emergency_credentials = "vault:obyra/break-glass"
            people = [{ name = "Ana", role = "DBA", contact = "+54 11 5555 0000", on_call = true }]
            [severities]
            sev1 = { when = "the application is down", respond_within = "15 min" }
            [communication]
            channels = ["#db-incidents"]
            update_every = "30 min"
            "##,
        )
        .unwrap();
        assert_eq!(runbook.rto.unwrap().seconds(), 14_400);
        assert!(runbook.people[0].on_call);
        assert_eq!(runbook.document, PathBuf::from("docs/runbook_db.md"));
        let written = toml::to_string(&runbook).unwrap();
        assert_eq!(toml::from_str::<Runbook>(&written).unwrap(), runbook);
    }

    #[test]
    fn an_absent_section_is_empty_and_unknown_keys_are_refused() {
        assert_eq!(toml::from_str::<Runbook>("").unwrap(), Runbook::default());
        assert!(toml::from_str::<Runbook>("rtto = \"4 hours\"").is_err());
    }
}
