//! The `[alerts]` section: strategy, section 6.

use std::collections::BTreeMap;

use obyra_evidence::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What raises an alert and who hears of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Alerts")]
pub struct Policy {
    /// Connections in use, in percent of the pool (the roles' `connection_limit`, else the server's).
    #[schemars(range(min = 1, max = 100))]
    pub connections_max_percent: u8,
    /// How long anyone may wait for a lock.
    pub lock_wait_max: HumanDuration,
    /// How much a database or table may grow in a day, in percent.
    #[schemars(range(min = 1, max = 1000))]
    pub growth_max_percent_per_day: u16,
    /// CPU in use, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub cpu_max_percent: u8,
    /// Storage in use, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub storage_max_percent: u8,
    /// The channels that hear of every alert.
    pub notify: Vec<String>,
    /// The channels, by name.
    pub channels: BTreeMap<String, Channel>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            connections_max_percent: 80,
            lock_wait_max: HumanDuration::from_seconds(30),
            growth_max_percent_per_day: 10,
            cpu_max_percent: 80,
            storage_max_percent: 80,
            notify: Vec::new(),
            channels: BTreeMap::new(),
        }
    }
}

/// A way to reach people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// What kind of channel it is.
    pub kind: ChannelKind,
    /// The e-mail addresses, for `kind = "email"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// The variable that holds the channel's secret address or key, for the other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
}

/// A kind of channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// E-mail.
    Email,
    /// A Slack webhook.
    Slack,
    /// Any webhook that takes JSON.
    Webhook,
    /// PagerDuty.
    Pagerduty,
}
