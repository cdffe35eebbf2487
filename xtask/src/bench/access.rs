//! `cargo xtask bench access`: a plan that finds nothing to change, beside the floor (one query that
//! reads every role, object and ACL) and beside pgroles and pgbedrock.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use obyra_access::policy::Mode;
use obyra_access::{Policy, Target};
use obyra_evidence::Quiet;
use obyra_postgres::cluster::{Installation, Search, TemporaryCluster, TemporaryOptions};
use obyra_postgres::{Conninfo, Limits, Session};

use super::{median, ms, peers};

const SCALE: &str = include_str!("access_scale.sql");
const FLOOR: &str = include_str!("catalogue_floor.sql");

/// How large the database is.
struct Size {
    tables: u32,
    schemas: u32,
    owners: u32,
    groups: u32,
    logins: u32,
}

const GROWN: Size = Size { tables: 2_000, schemas: 10, owners: 5, groups: 20, logins: 25 };
const LARGE: Size = Size { tables: 10_000, schemas: 50, owners: 25, groups: 400, logins: 575 };

/// What a measured run took.
#[derive(Clone, Copy)]
struct Run {
    floor: Duration,
    observe: Duration,
    plan: Duration,
    whole: Duration,
}

/// Runs the benchmark.
pub async fn run(options: &[&str]) -> Result<()> {
    let large = options.contains(&"--large");
    let runs = match options.iter().position(|o| *o == "--runs") {
        Some(at) => options.get(at + 1).context("--runs N")?.parse()?,
        None => 9,
    };
    let size = if large { LARGE } else { GROWN };
    let cluster = server().await?;
    let database = scale(&cluster, &size).await?;
    let (policy, target, lines) = import(&database).await?;
    say(format!("access import: {lines} lines of TOML"));

    let mut measured = Vec::new();
    for _ in 0..runs {
        measured.push(once(&database, &policy, &target).await?);
    }
    let pick = |field: fn(&Run) -> Duration| median(measured.iter().map(field).collect());
    let (floor, whole) = (pick(|r| r.floor), pick(|r| r.whole));
    say(format!("floor, one catalogue query as JSON: {}", ms(floor)));
    say(format!("obyra-db, observe: {}   plan: {}", ms(pick(|r| r.observe)), ms(pick(|r| r.plan))));
    say(format!(
        "obyra-db, connect + observe + plan: {}  = {:.2} x the floor",
        ms(whole),
        ratio(whole, floor)
    ));
    if !large && !options.contains(&"--no-peers") {
        for peer in peers::measure(&cluster.loopback())? {
            match peer.duration {
                Ok(duration) => say(format!(
                    "{}: {}  = {:.1} x obyra-db",
                    peer.name,
                    ms(duration),
                    ratio(duration, whole)
                )),
                Err(why) => say(format!("{}: not measured: {why}", peer.name)),
            }
        }
    }
    Ok(())
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// A benchmark's result is what it prints.
#[expect(clippy::print_stdout, reason = "a task's output")]
fn say(line: String) {
    println!("{line}");
}

async fn server() -> Result<TemporaryCluster> {
    let cache = PathBuf::from("target/obyra-db-cache");
    let search = Search { bin_dir: None, cache: cache.clone(), major: 16 };
    let installation = Installation::find_or_fetch(&search, &Quiet).await?;
    let options = TemporaryOptions { tls: true, ..TemporaryOptions::default() };
    Ok(TemporaryCluster::start_with(&installation, &cache, &options).await?)
}

/// Fills a database and settles its statistics, so that every run sees the same.
async fn scale(cluster: &TemporaryCluster, size: &Size) -> Result<Conninfo> {
    let database = cluster.admin();
    let session = Session::connect(&database, Limits::patient()).await?;
    let sql = [
        ("{tables}", size.tables),
        ("{schemas}", size.schemas),
        ("{owners}", size.owners),
        ("{groups}", size.groups),
        ("{logins}", size.logins),
    ]
    .iter()
    .fold(SCALE.to_owned(), |sql, (name, value)| sql.replace(name, &value.to_string()));
    session.batch_execute(&sql).await.context("filling the database")?;
    session.batch_execute("VACUUM ANALYZE").await?;
    let count = "SELECT (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'S') AND relnamespace::regnamespace::text ~ '^s[0-9]'), \
                 (SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_'), \
                 (SELECT count(*) FROM pg_class, aclexplode(relacl) WHERE relnamespace::regnamespace::text ~ '^s[0-9]')";
    let row = session.query_one(count, &[]).await?;
    say(format!(
        "{} tables and sequences, {} roles, {} ACL entries",
        row.get::<_, i64>(0),
        row.get::<_, i64>(1),
        row.get::<_, i64>(2)
    ));
    Ok(database)
}

/// The strategy that describes the database: with it the plan must be empty.
async fn import(database: &Conninfo) -> Result<(Policy, Target, usize)> {
    let session = Session::connect(database, Limits::default()).await?;
    let everything = obyra_access::observe(&session, &Policy::default(), &Target::default()).await?;
    let target = obyra_access::target_of(&everything);
    let observed = obyra_access::observe(&session, &Policy::default(), &target).await?;
    let imported = obyra_access::import(&observed, &target, Mode::Authoritative);
    Ok((imported.policy, target, imported.toml.lines().count()))
}

async fn once(database: &Conninfo, policy: &Policy, target: &Target) -> Result<Run> {
    let session = Session::connect(database, Limits::default()).await?;
    let start = Instant::now();
    let answer: String = session.query_one(FLOOR, &[]).await?.get(0);
    let floor = start.elapsed();
    drop(answer);
    drop(session);

    let start = Instant::now();
    let session = Session::connect(database, Limits::default()).await?;
    let connected = start.elapsed();
    let observed = obyra_access::observe(&session, policy, target).await?;
    let seen = start.elapsed();
    let plan = obyra_access::plan(policy, target, &observed);
    let whole = start.elapsed();
    if !plan.steps.is_empty() {
        bail!("the imported strategy is no fixpoint: {} steps, first {:?}", plan.steps.len(), plan.steps[0]);
    }
    Ok(Run { floor, observe: seen - connected, plan: whole - seen, whole })
}
