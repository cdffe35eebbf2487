//! The `[monitor]` section: strategy, section 2, "componentes adicionales".

use obyra_evidence::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How often the database is measured and where the figures go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Monitor")]
pub struct Policy {
    /// Whether this environment is monitored.
    pub enabled: bool,
    /// How often connections, locks and latency are read.
    pub every: HumanDuration,
    /// How often the sizes of databases and tables are read.
    pub sizes_every: HumanDuration,
    /// How long samples are kept.
    pub retention: HumanDuration,
    /// Where else the figures go.
    pub export_to: Vec<Sink>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            enabled: true,
            every: HumanDuration::from_seconds(10),
            sizes_every: HumanDuration::from_seconds(15 * 60),
            retention: HumanDuration::from_days(90),
            export_to: Vec::new(),
        }
    }
}

/// A system that receives metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sink {
    /// Amazon CloudWatch.
    Cloudwatch,
    /// Google Cloud Monitoring (Stackdriver).
    CloudMonitoring,
    /// A page that Prometheus reads.
    Prometheus,
    /// OpenTelemetry over OTLP.
    Otlp,
}
