//! The lines that the strategy states and a machine can check, each with a stable id.

use obyra_evidence::{Code, text::continuity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of the strategy. Section 7 comes first: it is the deploy checklist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LineId {
    /// Section 7: credentials in a secret manager, loaded into the runtime.
    Credentials,
    /// Section 7: roles created, grants applied.
    Roles,
    /// Section 7: `alembic upgrade head` on an empty database.
    Migrations,
    /// Section 7: seeds applied and verified.
    Seeds,
    /// Section 7: automatic backups configured and tested.
    Backups,
    /// Section 7: monitoring and alerts active.
    Monitoring,
    /// Section 7: emergency credentials and communication plan documented.
    Emergency,
    /// Section 2: the version of the server.
    ServerVersion,
    /// Section 2: the schemas of the environment.
    Schemas,
    /// Section 2: high availability in production.
    HighAvailability,
    /// Section 3: the administrator is not the application's role.
    AdminReserved,
    /// Section 3: source addresses per environment.
    Networks,
    /// Section 3: rotation every 90 days.
    Rotation,
    /// Section 4: the database is at the head revision.
    AtHead,
    /// Section 4: no `db.create_all()` in production code.
    NoCreateAll,
    /// Section 4: CI upgrades a temporary database.
    UpgradeGate,
    /// Section 4: CI downgrades one revision.
    DowngradeGate,
    /// Section 4: seeds are idempotent and versioned.
    IdempotentSeeds,
    /// Section 4: runtime alterations are idempotent.
    RuntimeHelpers,
    /// Section 5: daily snapshots and their retention.
    Retention,
    /// Section 5: point-in-time recovery.
    Pitr,
    /// Section 5: quarterly restore drill.
    RestoreDrill,
    /// Section 5: monthly encrypted logical export.
    LogicalExport,
    /// Section 6: TLS on external connections.
    Tls,
    /// Section 6: slow queries are audited.
    #[serde(rename = "pg_stat_statements")]
    PgStatStatements,
    /// Section 6: least privilege on sensitive tables.
    SensitiveTables,
    /// Section 6: the three alerts.
    Alerts,
    /// Section 6: incidents, people and response times.
    Runbook,
    /// Section 8: anonymisation outside production.
    AnonymisedCopies,
}

impl LineId {
    /// All lines, in the order in which they are printed.
    pub const ALL: [LineId; 29] = [
        LineId::Credentials,
        LineId::Roles,
        LineId::Migrations,
        LineId::Seeds,
        LineId::Backups,
        LineId::Monitoring,
        LineId::Emergency,
        LineId::ServerVersion,
        LineId::Schemas,
        LineId::HighAvailability,
        LineId::AdminReserved,
        LineId::Networks,
        LineId::Rotation,
        LineId::AtHead,
        LineId::NoCreateAll,
        LineId::UpgradeGate,
        LineId::DowngradeGate,
        LineId::IdempotentSeeds,
        LineId::RuntimeHelpers,
        LineId::Retention,
        LineId::Pitr,
        LineId::RestoreDrill,
        LineId::LogicalExport,
        LineId::Tls,
        LineId::PgStatStatements,
        LineId::SensitiveTables,
        LineId::Alerts,
        LineId::Runbook,
        LineId::AnonymisedCopies,
    ];

    /// The stable id: `roles`, `restore-drill`.
    pub fn id(self) -> &'static str {
        self.about().0
    }

    /// The section of the strategy that states it.
    pub fn section(self) -> &'static str {
        self.about().1
    }

    /// Its title.
    pub fn title(self) -> Code {
        self.about().2
    }

    /// Whether it is one of the seven lines of the deploy checklist.
    pub fn is_checklist(self) -> bool {
        self.section() == "7"
    }

    fn about(self) -> (&'static str, &'static str, Code) {
        match self {
            LineId::Credentials => ("credentials", "7", continuity::TITLE_CREDENTIALS),
            LineId::Roles => ("roles", "7", continuity::TITLE_ROLES),
            LineId::Migrations => ("migrations", "7", continuity::TITLE_MIGRATIONS),
            LineId::Seeds => ("seeds", "7", continuity::TITLE_SEEDS),
            LineId::Backups => ("backups", "7", continuity::TITLE_BACKUPS),
            LineId::Monitoring => ("monitoring", "7", continuity::TITLE_MONITORING),
            LineId::Emergency => ("emergency", "7", continuity::TITLE_EMERGENCY),
            LineId::ServerVersion => ("server-version", "2", continuity::TITLE_SERVER_VERSION),
            LineId::Schemas => ("schemas", "2", continuity::TITLE_SCHEMAS),
            LineId::HighAvailability => ("high-availability", "2", continuity::TITLE_HIGH_AVAILABILITY),
            LineId::AdminReserved => ("admin-reserved", "3", continuity::TITLE_ADMIN_RESERVED),
            LineId::Networks => ("networks", "3", continuity::TITLE_NETWORKS),
            LineId::Rotation => ("rotation", "3", continuity::TITLE_ROTATION),
            LineId::AtHead => ("at-head", "4", continuity::TITLE_AT_HEAD),
            LineId::NoCreateAll => ("no-create-all", "4", continuity::TITLE_NO_CREATE_ALL),
            LineId::UpgradeGate => ("upgrade-gate", "4", continuity::TITLE_UPGRADE_GATE),
            LineId::DowngradeGate => ("downgrade-gate", "4", continuity::TITLE_DOWNGRADE_GATE),
            LineId::IdempotentSeeds => ("idempotent-seeds", "4", continuity::TITLE_IDEMPOTENT_SEEDS),
            LineId::RuntimeHelpers => ("runtime-helpers", "4", continuity::TITLE_RUNTIME_HELPERS),
            LineId::Retention => ("retention", "5", continuity::TITLE_RETENTION),
            LineId::Pitr => ("pitr", "5", continuity::TITLE_PITR),
            LineId::RestoreDrill => ("restore-drill", "5", continuity::TITLE_RESTORE_DRILL),
            LineId::LogicalExport => ("logical-export", "5", continuity::TITLE_LOGICAL_EXPORT),
            LineId::Tls => ("tls", "6", continuity::TITLE_TLS),
            LineId::PgStatStatements => ("pg_stat_statements", "6", continuity::TITLE_PG_STAT_STATEMENTS),
            LineId::SensitiveTables => ("sensitive-tables", "6", continuity::TITLE_SENSITIVE_TABLES),
            LineId::Alerts => ("alerts", "6", continuity::TITLE_ALERTS),
            LineId::Runbook => ("runbook", "6", continuity::TITLE_RUNBOOK),
            LineId::AnonymisedCopies => ("anonymised-copies", "8", continuity::TITLE_ANONYMISED_COPIES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_file_and_in_order() {
        for id in LineId::ALL {
            assert_eq!(serde_json::to_value(id).unwrap(), id.id());
        }
        assert!(LineId::ALL.is_sorted());
        assert!(LineId::ALL[..7].iter().all(|id| id.is_checklist()));
        assert!(!LineId::ALL[7..].iter().any(|id| id.is_checklist()));
    }
}
