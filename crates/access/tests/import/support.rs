//! A cluster, a database, and what every test asks of an import.

use std::collections::BTreeMap;

use obyra_access::policy::Mode;
use obyra_access::{
    Imported, Observed, Order, Patience, Plan, Policy, Target, apply, import, observe, plan, target_of,
};
use obyra_evidence::Quiet;
use obyra_postgres::cluster::{TemporaryCluster, for_tests_version};
use obyra_postgres::{Conninfo, Limits, Session};

/// A cluster with one database of its own.
pub struct Database {
    pub cluster: TemporaryCluster,
    pub admin: Session,
}

impl Database {
    /// An empty database on a new cluster.
    pub async fn empty() -> Database {
        Database::on(16).await
    }

    /// The same on another version.
    pub async fn on(major: u32) -> Database {
        let cluster = for_tests_version(major).await;
        let maintenance = session(&cluster.admin()).await;
        maintenance.batch_execute("CREATE DATABASE shop").await.unwrap();
        let admin = session(&cluster.admin().with_database("shop")).await;
        Database { cluster, admin }
    }

    /// Statements, one by one: each in a transaction of its own.
    pub async fn run(&self, statements: &[impl AsRef<str>]) {
        for statement in statements {
            run(&self.admin, statement.as_ref()).await;
        }
    }

    /// Another session of the administrator's machine as a role with the password `secret`.
    pub async fn session_of(&self, role: &str) -> Session {
        let target = self.cluster.admin().with_database("shop");
        session(&target.with_role(role, Some("secret".to_owned().into()))).await
    }
}

pub async fn session(target: &Conninfo) -> Session {
    Session::connect(target, Limits::default()).await.unwrap()
}

pub async fn run(session: &Session, statement: &str) {
    if let Err(error) = session.batch_execute(statement).await {
        panic!("{statement}\n{error:?}");
    }
}

/// What `access import` does for a database without a strategy.
pub async fn imported(session: &Session) -> (Imported, Target) {
    let observed = observe(session, &Policy::default(), &Target::default()).await.unwrap();
    let target = target_of(&observed);
    (import(&observed, &target, Mode::Authoritative), target)
}

/// The plan of a policy.
pub async fn planned(session: &Session, policy: &Policy, target: &Target) -> Plan {
    let observed: Observed = observe(session, policy, target).await.unwrap();
    plan(policy, target, &observed)
}

/// The statements of a plan, for reading in a failed assertion.
pub fn statements(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().flat_map(|step| step.sql.iter().map(String::as_str)).collect()
}

/// Applies an imported policy after a change by hand: what every role can effectively do must be what
/// the policy implies. Answers how many questions the server was asked.
pub async fn applied(session: &Session, policy: &Policy, target: &Target) -> usize {
    let approved = planned(session, policy, target).await;
    let order = Order { policy, target, approved: &approved, passwords: &BTreeMap::new() };
    match apply(session, order, &Patience::default(), &Quiet).await {
        Ok(applied) => applied.verified,
        Err(failure) => panic!("{failure}"),
    }
}

/// The section as the strategy's file has it.
#[derive(serde::Deserialize)]
struct File {
    access: Policy,
}

/// Imports, and requires what holds for every import: the policy has no problem, its file reads
/// back as the same policy, and the next plan is empty in authoritative mode.
pub async fn faithful(session: &Session) -> (Imported, Target) {
    let (imported, target) = imported(session).await;
    let toml = &imported.toml;
    assert_eq!(imported.policy.check(), [], "{toml}");
    let read: File = toml::from_str(toml).unwrap_or_else(|e| panic!("{e}\n{toml}"));
    assert_eq!(read.access, imported.policy, "{toml}");
    let plan = planned(session, &imported.policy, &target).await;
    assert_eq!(statements(&plan), [""; 0], "{toml}");
    assert_eq!(imported.policy.mode, Mode::Authoritative, "{toml}");
    (imported, target)
}
