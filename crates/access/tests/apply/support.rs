//! A database to converge, and whoever converges it.

use std::collections::BTreeMap;
use std::time::Duration;

use obyra_access::{
    Applied, Observed, Order, Patience, Plan, Policy, Provider, Target, apply, observe, plan,
};
use obyra_evidence::{Failure, Quiet};
use obyra_postgres::cluster::{TemporaryCluster, for_tests, for_tests_version};
use obyra_postgres::secrecy::SecretString;
use obyra_postgres::{Limits, Session, quote};

/// The strategy's roles with the owner beside them, as research and the default strategy have them.
pub const MODEL: &str = r#"
owner = "obyra_owner"
[roles.obyra_app]
connection_limit = 60
schemas = { app = "read-write", audit = "append" }
search_path = ["app"]
settings = { idle_in_transaction_session_timeout = "60s" }
[roles.obyra_migrate]
acts_as = "obyra_owner"
member_of = ["obyra_app"]
search_path = ["app"]
rotate = "90 days"
[roles.obyra_readonly]
schemas = { app = "read", analytics = "read" }
settings = { default_transaction_read_only = true }
[sensitive]
"app.users" = { obyra_readonly = ["id", "email"] }
"app.payments" = { obyra_readonly = [] }
[objects]
"table app.alembic_version" = { obyra_app = ["SELECT"] }
"#;

/// Some tables, as a migration of the application would make them.
pub const TABLES: &str = r#"
CREATE TABLE app.users (id serial PRIMARY KEY, email text, name text, password_hash text);
CREATE TABLE app.payments (id bigint GENERATED ALWAYS AS IDENTITY, amount numeric);
CREATE TABLE app.alembic_version (version_num text);
CREATE TABLE app."order" (id int);
CREATE TYPE app.mood AS ENUM ('good', 'bad');
CREATE VIEW app.totals AS SELECT count(*) FROM app.payments;
CREATE MATERIALIZED VIEW app.summary AS SELECT 1 AS one;
CREATE FUNCTION app.twice(int, app.mood) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2';
CREATE TABLE audit.log (id serial, what text);
"#;

/// Who administers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admin {
    Superuser,
    /// `NOSUPERUSER CREATEROLE CREATEDB`, owner of the database, as on RDS.
    Master,
}

/// A cluster with a database `obras`.
pub struct World {
    cluster: TemporaryCluster,
    pub major: u32,
    pub who: Admin,
    /// A superuser's session in `obras`.
    pub root: Session,
    /// The administrator's session in `obras`.
    pub admin: Session,
    pub target: Target,
}

/// Who administers what version in the tests that ask all of them.
const USUAL: [(Admin, u32); 6] = [
    (Admin::Superuser, 16),
    (Admin::Superuser, 18),
    (Admin::Master, 14),
    (Admin::Master, 15),
    (Admin::Master, 16),
    (Admin::Master, 18),
];

/// The others.
const SELDOM: [(Admin, u32); 4] =
    [(Admin::Superuser, 14), (Admin::Superuser, 15), (Admin::Superuser, 17), (Admin::Master, 17)];

const PASSWORD: &str = "only-for-tests";

impl World {
    pub async fn start(who: Admin) -> World {
        World::on(for_tests().await, who).await
    }

    /// Both administrators, on the oldest version, the newest, and those between where they differ.
    pub async fn all() -> Vec<World> {
        World::each(&USUAL).await
    }

    /// Both administrators on every version.
    pub async fn every() -> Vec<World> {
        World::each(&[&USUAL[..], &SELDOM].concat()).await
    }

    async fn each(wanted: &[(Admin, u32)]) -> Vec<World> {
        let mut worlds = Vec::new();
        for (who, major) in wanted {
            worlds.push(World::on(for_tests_version(*major).await, *who).await);
        }
        worlds
    }

    /// Before PostgreSQL 15 the schema `public` belongs to a superuser, even where the database is the
    /// administrator's: only a superuser can close it.
    pub fn leaves_public_open(&self) -> bool {
        self.major < 15 && self.who == Admin::Master
    }

    pub async fn on(cluster: TemporaryCluster, who: Admin) -> World {
        let first = connect(&cluster, "postgres", None).await;
        let owner = match who {
            Admin::Superuser => String::new(),
            Admin::Master => {
                let roles = format!(
                    "CREATE ROLE rds_superuser; CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORD}'; \
                     GRANT rds_superuser TO master WITH ADMIN OPTION"
                );
                first.batch_execute(&roles).await.unwrap();
                " OWNER master".to_owned()
            }
        };
        first.batch_execute(&format!("CREATE DATABASE obras{owner}")).await.unwrap();
        let root = connect(&cluster, "obras", None).await;
        let (admin, provider) = match who {
            Admin::Superuser => (connect(&cluster, "obras", None).await, Provider::SelfHosted),
            Admin::Master => (connect(&cluster, "obras", Some("master")).await, Provider::Rds),
        };
        let target = Target { database: "obras".into(), schemas: BTreeMap::new(), provider };
        let major = root.version().major();
        let mut world = World { cluster, major, who, root, admin, target };
        world.schemas(&["app", "audit", "analytics"]);
        world
    }

    pub fn schemas(&mut self, names: &[&str]) {
        self.target.schemas = names.iter().map(|n| ((*n).to_owned(), (*n).to_owned())).collect();
    }

    /// Runs statements as the superuser.
    pub async fn sql(&self, statements: &str) {
        self.root.batch_execute(statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    }

    /// Runs statements as a role, in a transaction that is committed. What the role may not do
    /// comes back as the server's message.
    pub async fn try_as(&self, role: &str, statements: &str) -> Result<(), String> {
        let sql = format!("SET SESSION AUTHORIZATION {}; {statements}", quote::ident(role));
        let session = connect(&self.cluster, "obras", None).await;
        let said = |e: obyra_postgres::tokio_postgres::Error| e.as_db_error().unwrap().message().to_owned();
        session.batch_execute(&sql).await.map_err(said)
    }

    pub async fn as_role(&self, role: &str, statements: &str) {
        self.try_as(role, statements)
            .await
            .unwrap_or_else(|e| panic!("{:?} {role}: {statements}: {e}", self.who));
    }

    /// A session that logs in as a role, with its settings.
    pub async fn login(&self, role: &str) -> Session {
        self.sql(&format!("ALTER ROLE {} PASSWORD '{PASSWORD}'", quote::ident(role))).await;
        connect(&self.cluster, "obras", Some(role)).await
    }

    /// A superuser's session in another database.
    pub async fn elsewhere(&self, database: &str) -> Session {
        connect(&self.cluster, database, None).await
    }

    /// Another session of the administrator.
    pub async fn another(&self) -> Session {
        match self.who {
            Admin::Superuser => connect(&self.cluster, "obras", None).await,
            Admin::Master => connect(&self.cluster, "obras", Some("master")).await,
        }
    }

    pub async fn one(&self, query: &str) -> String {
        let row = self.root.query_one(&format!("SELECT ({query})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub async fn observe(&self, policy: &Policy) -> Observed {
        observe(&self.admin, policy, &self.target).await.unwrap()
    }

    pub async fn plan(&self, policy: &Policy) -> Plan {
        assert_eq!(policy.check(), []);
        plan(policy, &self.target, &self.observe(policy).await)
    }

    pub async fn apply(&self, policy: &Policy, approved: &Plan) -> Result<Applied, Failure> {
        self.apply_with(&self.admin, policy, approved, &BTreeMap::new()).await
    }

    pub async fn apply_with(
        &self,
        session: &Session,
        policy: &Policy,
        approved: &Plan,
        passwords: &BTreeMap<String, SecretString>,
    ) -> Result<Applied, Failure> {
        let order = Order { policy, target: &self.target, approved, passwords };
        let patience =
            Patience { lock_timeout: Duration::from_millis(500), attempts: 8, ..Patience::default() };
        apply(session, order, &patience, &Quiet).await
    }

    /// Plans and applies; after that there is nothing left to do. Returns the plan.
    pub async fn converge(&self, policy: &Policy) -> Plan {
        let plan = self.plan(policy).await;
        let who = format!("{:?} on {}", self.who, self.major);
        self.apply(policy, &plan)
            .await
            .unwrap_or_else(|f| panic!("{who}: {f} {:?}\n{}", f.mend, statements(&plan)));
        let again = self.plan(policy).await;
        assert_eq!(statements(&again), "", "{who}: a second plan");
        plan
    }

    /// The model with its tables, created as the application's migrations create them.
    pub async fn model(&self) -> Policy {
        let policy = policy(MODEL);
        self.converge(&policy).await;
        self.as_role("obyra_migrate", &format!("SET ROLE obyra_owner; {TABLES}")).await;
        self.converge(&policy).await;
        policy
    }
}

async fn connect(cluster: &TemporaryCluster, database: &str, role: Option<&str>) -> Session {
    let mut conninfo = cluster.admin().with_database(database);
    if let Some(role) = role {
        conninfo = conninfo.with_role(role, Some(PASSWORD.into()));
    }
    Session::connect(&conninfo, Limits::default()).await.unwrap()
}

pub fn policy(toml: &str) -> Policy {
    toml::from_str(toml).unwrap()
}

/// A policy with more lines at its end; the model's last table is `objects`.
pub fn model_with(mode: &str, more: &str) -> Policy {
    policy(&format!("mode = \"{mode}\"\n{MODEL}{more}"))
}

pub fn statements(plan: &Plan) -> String {
    plan.steps.iter().flat_map(|s| s.sql.clone()).collect::<Vec<_>>().join("\n")
}

/// Whether a plan has a finding of a code such as `access.view-shows`.
pub fn finds(plan: &Plan, code: &str) -> bool {
    plan.findings.iter().any(|f| f.message.code().id() == code)
}
