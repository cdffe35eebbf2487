//! Facts that the database itself shows: credentials, roles, schemas, TLS, statistics.

use obyra_access::policy::RoleKind;
use obyra_continuity::{Fact, LineId};
use obyra_evidence::{Failure, text};
use obyra_postgres::Session;
use obyra_strategy::{Network, Stage, Store};

use super::{broken, holds, unknown};
use crate::commands::converge::Planned;
use crate::environment::Opened;

/// The facts, line by line.
pub async fn facts(opened: &Opened<'_>, planned: &Planned) -> Result<Vec<(LineId, Fact)>, Failure> {
    let mut facts = vec![
        (LineId::Credentials, credentials(opened, planned)),
        (LineId::Roles, roles(opened, planned)),
        (LineId::ServerVersion, server_version(opened, planned)),
        (LineId::Schemas, schemas(opened, planned)),
        (LineId::AdminReserved, admin_reserved(opened, planned)),
        (LineId::PgStatStatements, statistics(opened, &planned.session).await),
        (LineId::SensitiveTables, sensitive_tables(opened, planned)),
    ];
    let transport = Transport::observe(&planned.session).await;
    facts.push((LineId::Tls, transport.tls(opened)));
    facts.push((LineId::Networks, transport.networks(opened)));
    Ok(facts)
}

fn credentials(opened: &Opened<'_>, planned: &Planned) -> Fact {
    let passwords = &planned.passwords;
    let store = opened.environment.secrets.store;
    let apply = format!("obyra-db apply {}", opened.name());
    if let Some(finding) = passwords.findings.first() {
        return unknown(
            text::cli::FACT_CREDENTIALS_UNKNOWN.with("role", &finding.subject).with("why", &finding.message),
            finding.mend.clone(),
        );
    }
    if !passwords.set.is_empty() {
        let names: Vec<&str> = passwords.set.iter().map(|step| step.role.as_str()).collect();
        return broken(text::cli::FACT_CREDENTIALS_UNSET.with("roles", names.join(", ")), apply);
    }
    if store == Store::File && opened.environment.stage != Stage::Development {
        let mend = format!("[environments.{}.secrets] store = \"env\"", opened.name());
        return broken(text::cli::FACT_CREDENTIALS_FILE.message(), mend);
    }
    let proven = passwords.proven.join(", ");
    holds(text::cli::FACT_CREDENTIALS.with("store", store.name()).with("roles", proven))
}

fn roles(opened: &Opened<'_>, planned: &Planned) -> Fact {
    let changes = planned.plan.steps.len();
    if changes > 0 {
        let first = &planned.plan.steps[0];
        let evidence = text::cli::FACT_ROLES_DRIFT
            .with("changes", changes)
            .with("subject", &first.subject)
            .with("reason", first.reason.say(opened.invocation.printer.language));
        return broken(evidence, format!("obyra-db plan {0}; obyra-db apply {0}", opened.name()));
    }
    let open = text::access::PUBLIC_OPEN;
    if let Some(finding) = planned.plan.findings.iter().find(|finding| finding.message.code() == open) {
        let plan = text::cli::RUN.with("command", format!("obyra-db plan {}", opened.name()));
        let mend = finding.mend.clone().unwrap_or(plan);
        return Fact::Broken { evidence: vec![finding.message.clone()], mend };
    }
    let declared = opened.environment.access.declared().count();
    let objects = planned.observed.relations.len() + planned.observed.routines.len();
    holds(text::cli::FACT_ROLES.with("roles", declared).with("objects", objects))
}

fn server_version(opened: &Opened<'_>, planned: &Planned) -> Fact {
    let (is, wanted) = (planned.session.version(), opened.environment.postgres_major);
    if is.major() == wanted {
        holds(text::cli::FACT_VERSION.with("version", is))
    } else {
        let evidence = text::cli::FACT_VERSION_OTHER.with("version", is).with("wanted", wanted);
        broken(evidence, format!("[environments.{}] postgres_version = {}", opened.name(), is.major()))
    }
}

fn schemas(opened: &Opened<'_>, planned: &Planned) -> Fact {
    let wanted = opened.environment.schemas.values();
    let missing: Vec<&str> =
        wanted.map(String::as_str).filter(|name| planned.observed.schema(name).is_none()).collect();
    if missing.is_empty() {
        let names: Vec<&str> = opened.environment.schemas.values().map(String::as_str).collect();
        holds(text::cli::FACT_SCHEMAS.with("schemas", names.join(", ")))
    } else {
        let evidence = text::cli::FACT_SCHEMAS_MISSING.with("schemas", missing.join(", "));
        broken(evidence, format!("obyra-db apply {}", opened.name()))
    }
}

/// No role of the application may do what only the administrator should.
fn admin_reserved(opened: &Opened<'_>, planned: &Planned) -> Fact {
    let policies = &opened.environment.access.roles;
    let mighty: Vec<&str> = policies
        .iter()
        .filter(|(_, policy)| policy.kind != RoleKind::Admin)
        .filter_map(|(name, _)| planned.observed.role(name))
        .filter(|role| role.superuser || role.createrole)
        .map(|role| role.name.as_str())
        .collect();
    if mighty.is_empty() {
        holds(text::cli::FACT_ADMIN.message())
    } else {
        let evidence = text::cli::FACT_ADMIN_MIGHTY.with("roles", mighty.join(", "));
        broken(evidence, format!("obyra-db apply {}", opened.name()))
    }
}

async fn statistics(opened: &Opened<'_>, session: &Session) -> Fact {
    if !opened.environment.access.extensions.iter().any(|name| name == "pg_stat_statements") {
        return Fact::NotAsked;
    }
    let installed = "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
                     WHERE extname = 'pg_stat_statements'";
    let schema: Option<String> = match session.query_opt(installed, &[]).await {
        Ok(row) => row.map(|row| row.get(0)),
        Err(error) => return unknown(text::cli::FACT_UNREADABLE.with("why", &error), None),
    };
    let Some(schema) = schema else {
        return broken(
            text::cli::FACT_STATISTICS_ABSENT.message(),
            format!("obyra-db apply {}", opened.name()),
        );
    };
    // Installed is not loaded: without the library the view answers with an error.
    let count = format!("SELECT count(*) FROM {}.pg_stat_statements", obyra_postgres::quote::ident(&schema));
    match session.query_one(&count, &[]).await {
        Ok(row) => holds(text::cli::FACT_STATISTICS.with("statements", row.get::<_, i64>(0))),
        Err(error) => {
            let why = obyra_postgres::sql_failure(text::cli::FACT_STATISTICS_SILENT.message(), &error);
            broken(
                text::cli::FACT_UNREADABLE.with("why", &why),
                "shared_preload_libraries = 'pg_stat_statements', then restart the server",
            )
        }
    }
}

fn sensitive_tables(opened: &Opened<'_>, planned: &Planned) -> Fact {
    let sensitive = &opened.environment.access.sensitive;
    if sensitive.is_empty() {
        return unknown(
            text::cli::FACT_SENSITIVE_NONE.message(),
            Some(
                text::cli::RUN
                    .with("command", "[access.sensitive] \"app.users\" = { obyra_readonly = [\"id\"] }"),
            ),
        );
    }
    let mut present = Vec::new();
    for table in sensitive.keys() {
        let Some((schema, name)) = table.split_once('.') else { continue };
        let Some(real) = opened.environment.schemas.get(schema) else { continue };
        let Some(schema) = planned.observed.schema(real) else { continue };
        if planned.observed.relations.iter().any(|r| r.schema == schema.oid && r.name == name) {
            present.push(format!("{real}.{name}"));
        }
    }
    if !planned.plan.steps.is_empty() {
        let evidence = text::cli::FACT_SENSITIVE_DRIFT.with("changes", planned.plan.steps.len());
        return broken(evidence, format!("obyra-db apply {}", opened.name()));
    }
    if present.is_empty() {
        let mend = text::cli::RUN.with("command", format!("obyra-db migrate deploy {}", opened.name()));
        return unknown(text::cli::FACT_SENSITIVE_ABSENT.message(), Some(mend));
    }
    holds(text::cli::FACT_SENSITIVE.with("tables", present.join(", ")))
}

/// How connections may reach the server: whether TLS is on, and the rules of pg_hba.conf.
enum Transport {
    Rules { tls: bool, rules: Vec<Rule> },
    Hidden { why: String },
}

/// A line of pg_hba.conf that lets a connection from the network in.
struct Rule {
    line: i32,
    kind: String,
    address: String,
}

impl Transport {
    /// Reads `pg_hba_file_rules`, which only a superuser may
    /// (<https://www.postgresql.org/docs/16/view-pg-hba-file-rules.html>).
    async fn observe(session: &Session) -> Transport {
        let sql = "SELECT line_number, type, coalesce(address, ''), coalesce(netmask, ''), \
                   current_setting('ssl') FROM pg_hba_file_rules \
                   WHERE error IS NULL AND type <> 'local' AND auth_method <> 'reject' ORDER BY line_number";
        match session.query(sql, &[]).await {
            Ok(rows) => Transport::Rules {
                tls: rows.first().is_none_or(|row| row.get::<_, &str>(4) == "on"),
                rules: rows
                    .iter()
                    .map(|row| Rule {
                        line: row.get(0),
                        kind: row.get(1),
                        address: network(row.get(2), row.get(3)),
                    })
                    .collect(),
            },
            Err(error) => Transport::Hidden {
                why: obyra_postgres::sql_failure(text::cli::FACT_HBA_HIDDEN.message(), &error).to_string(),
            },
        }
    }

    fn tls(&self, opened: &Opened<'_>) -> Fact {
        match self {
            Transport::Hidden { why } => {
                let mend = match opened.environment.runs_on {
                    obyra_strategy::RunsOn::Rds => text::cli::FACT_TLS_RDS.message(),
                    obyra_strategy::RunsOn::CloudSql => text::cli::FACT_TLS_CLOUD_SQL.message(),
                    _ => text::cli::FACT_HBA_GRANT.message(),
                };
                unknown(text::cli::FACT_UNREADABLE.with("why", why), Some(mend))
            }
            Transport::Rules { tls: false, .. } => broken(
                text::cli::FACT_TLS_OFF.message(),
                "ssl = on in postgresql.conf, with ssl_cert_file and ssl_key_file",
            ),
            Transport::Rules { rules, .. } => match rules.iter().find(|rule| rule.lets_plain_text_in()) {
                Some(rule) => broken(
                    text::cli::FACT_TLS_PLAIN.with("line", rule.line).with("address", &rule.address),
                    format!("hostssl instead of {} in line {} of pg_hba.conf", rule.kind, rule.line),
                ),
                None => holds(text::cli::FACT_TLS.with("rules", rules.len())),
            },
        }
    }

    fn networks(&self, opened: &Opened<'_>) -> Fact {
        let allowed = &opened.environment.networks;
        if allowed.is_empty() {
            return Fact::NotAsked;
        }
        match self {
            Transport::Hidden { why } => unknown(text::cli::FACT_UNREADABLE.with("why", why), None),
            Transport::Rules { rules, .. } => {
                let outside =
                    rules.iter().find(|rule| !is_loopback(&rule.address) && !rule.is_within(allowed));
                let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                match outside {
                    Some(rule) => broken(
                        text::cli::FACT_NETWORK_OUTSIDE
                            .with("line", rule.line)
                            .with("address", &rule.address)
                            .with("allowed", list.join(", ")),
                        format!(
                            "narrow line {} of pg_hba.conf, or widen networks in the strategy",
                            rule.line
                        ),
                    ),
                    None => holds(text::cli::FACT_NETWORKS.with("allowed", list.join(", "))),
                }
            }
        }
    }
}

impl Rule {
    fn lets_plain_text_in(&self) -> bool {
        matches!(self.kind.as_str(), "host" | "hostnossl" | "hostnogssenc") && !is_loopback(&self.address)
    }

    /// `all`, `samenet` and host names are within no list of networks.
    fn is_within(&self, allowed: &[Network]) -> bool {
        self.address.parse::<Network>().is_ok_and(|own| allowed.iter().any(|network| network.covers(&own)))
    }
}

fn is_loopback(address: &str) -> bool {
    address.starts_with("127.") || address == "::1/128" || address == "localhost"
}

/// `pg_hba_file_rules` gives address and mask apart; the strategy speaks of prefixes.
fn network(address: &str, mask: &str) -> String {
    let bits = match mask.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(mask)) => u32::from(mask).count_ones(),
        Ok(std::net::IpAddr::V6(mask)) => u128::from(mask).count_ones(),
        Err(_) => return address.to_owned(),
    };
    format!("{address}/{bits}")
}
