//! Backups through the program itself: taken, listed, proven, damaged, mended, opened, let go, and what comes
//! back of them.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use obyra_postgres::cluster::{TemporaryCluster, for_tests, owner_of_files};
use obyra_postgres::secrecy::{ExposeSecret as _, SecretString};
use obyra_postgres::{Conninfo, Host, Limits, Reveal, Scheme, Session};
use project::{Dev, Project, Run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const STRATEGY: &str = r#"
state_dir = ".obyra-db"

[environments.production]
runs_on = "self-hosted"
url_env = "ADMIN_URL"
database = "shop"
schemas = { app = "public" }

[secrets]
store = "env"

[access]
mode = "adopt"
owner = "postgres"

[backup]
source = "protocol"
pitr = { enabled = PITR }
"#;

const PASSPHRASE: &str = "correct horse battery staple 7391";

/// A server with the database `shop`, and a project that backs it up.
struct Shop {
    cluster: TemporaryCluster,
    project: Project,
}

impl Shop {
    /// With more lines of `[backup]`. `DIR` in them is the project's folder. Where something is to expire at once,
    /// no window of instants keeps it.
    async fn open(backup: &str) -> Shop {
        let cluster = for_tests().await;
        sql(&cluster.admin(), "CREATE DATABASE shop").await;
        // The archive has what the server has on its disk.
        sql(&cluster.admin(), "ALTER DATABASE shop SET synchronous_commit = on").await;
        let mut project = Project::empty();
        let backup = backup.replace("DIR", &project.path().display().to_string());
        let pitr = (!backup.contains("retention")).to_string();
        project.write("obyra-db.toml", &format!("{}{backup}\n", STRATEGY.replace("PITR", &pitr)));
        let url = cluster.loopback().with_database("shop");
        project.set("ADMIN_URL", url.url(Scheme::Postgresql, Reveal::Password).expose_secret());
        let shop = Shop { cluster, project };
        shop.sql("CREATE TABLE orders (id int PRIMARY KEY, what text)").await;
        shop.sell(1, 1000).await;
        shop
    }

    async fn sql(&self, statement: &str) -> String {
        sql(&self.cluster.admin().with_database("shop"), statement).await
    }

    async fn sell(&self, from: u32, to: u32) {
        let rows = format!(
            "INSERT INTO orders SELECT n, repeat(md5(n::text), 8) FROM generate_series({from}, {to}) n"
        );
        self.sql(&rows).await;
    }

    /// `backup VERB production …`.
    fn backup(&self, words: &str) -> Run {
        let mut words: Vec<&str> = words.split(' ').collect();
        let verb = if words[0] == "key" { 2 } else { 1 };
        words.insert(0, "backup");
        words.insert(verb + 1, "production");
        self.project.run(&words)
    }

    fn json(&self, words: &str, code: i32) -> Value {
        let run = self.backup(&format!("{words} --json")).ends(code);
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{words}: {e}\n{}", run.stdout))
    }

    /// The names of the backups, the oldest first.
    fn backups(&self) -> Vec<String> {
        let list = self.json("list", 0);
        let backups = list["clusters"][0]["backups"].as_array().unwrap().iter();
        backups.map(|kept| kept["backup"]["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The lines of the checklist that speak of backups.
    fn checklist(&self) -> BTreeMap<String, String> {
        let run = self.project.run(&["check", "production", "--json"]).ends(2);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        let lines = report["lines"].as_array().unwrap().iter().map(|line| {
            (line["id"].as_str().unwrap().to_owned(), line["status"].as_str().unwrap().to_owned())
        });
        let ours = ["backups", "retention", "pitr", "restore-drill"];
        lines.filter(|(id, _)| ours.contains(&id.as_str())).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.project.path().join(name)
    }
}

/// Runs it; the first column of its last row, if there is one.
async fn sql(database: &Conninfo, statement: &str) -> String {
    let session = Session::connect(database, Limits::default()).await.unwrap();
    if statement.starts_with("SELECT") {
        return session.query_one(statement, &[]).await.unwrap().get(0);
    }
    session.batch_execute(statement).await.unwrap();
    String::new()
}

const COUNT: &str = "SELECT count(*)::text FROM orders";
const NOW: &str = "SELECT clock_timestamp()::text";

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_first_backup_to_a_checklist_that_believes_it() {
    let shop = Shop::open("").await;
    for (line, status) in shop.checklist() {
        assert!(["failed", "unknown"].contains(&status.as_str()), "{line}: {status}");
    }
    shop.backup("list").ends(2).says("backup run production");
    shop.backup("restore --to latest --into x").ends(1).says("backup run production");

    shop.backup("run").ends(0).says("backup.key").says("the first of its line");
    let key = shop.path(".obyra-db/backup.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    shop.sell(1001, 1010).await;
    let second = shop.json("run", 0);
    let backups = shop.backups();
    assert_eq!(second["backup"]["parent"].as_str(), Some(backups[0].as_str()), "{second}");
    let figure = |name: &str| second["backup"]["totals"][name].as_u64().unwrap();
    assert!(figure("stored") < figure("bytes") / 20, "{second}");

    shop.backup("wal --until-caught-up").ends(0);
    let list = shop.json("list", 0);
    assert_eq!(list["clusters"][0]["holes"].as_array().unwrap().len(), 0, "{list}");
    shop.backup("list").ends(0).says(&backups[0]).says(&backups[1]).says("any instant from");
    shop.backup("verify").ends(0).says("0 findings");
    let drilled = shop.json("drill", 0);
    assert_eq!(drilled["backup"].as_str(), Some(backups[1].as_str()));
    shop.project
        .run(&["evidence", "list", "production", "--subject", "backup.drill"])
        .ends(0)
        .says("restored and proven");
    for (line, status) in shop.checklist() {
        assert_eq!(status, "passed", "{line}");
    }
    shop.project.run(&["evidence", "verify"]).ends(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_programs_make_one_repository() {
    let shop = Shop::open("").await;
    // Each finds neither key nor repository.
    thread::scope(|all| {
        for _ in 0..3 {
            all.spawn(|| shop.backup("run").ends(0));
        }
    });
    assert_eq!(shop.backups().len(), 3);
    shop.backup("verify").ends(0).says("0 findings");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_by_mistake_comes_back() {
    let mut shop =
        Shop::open("repository = 'file://DIR/repository'\n[backup.key]\nenv = 'OBYRA_BACKUP_PASSPHRASE'")
            .await;
    shop.backup("run").ends(1).says("OBYRA_BACKUP_PASSPHRASE");
    shop.project.set("OBYRA_BACKUP_PASSPHRASE", PASSPHRASE);
    shop.backup("run").ends(0);
    let first: String =
        shop.json("list", 0)["clusters"][0]["backups"][0]["backup"]["started"].as_str().unwrap().to_owned();
    shop.sell(1001, 1500).await;
    let moment = shop.sql(NOW).await;
    shop.sql("DELETE FROM orders").await;
    shop.sql("INSERT INTO orders VALUES (1, 'after the mistake')").await;
    shop.backup("wal --until-caught-up").ends(0);
    let restore = |more: &[&str]| {
        let mut words = vec!["backup", "restore", "production", "--yes"];
        words.extend(more);
        shop.project.run(&words)
    };

    // Beside the table, in the server that goes on.
    restore(&["--to", &moment, "--table", "orders", "--as", "orders_before"]).ends(0).says("1500 rows");
    assert_eq!(shop.sql("SELECT count(*)::text FROM orders_before").await, "1500");
    assert_eq!(shop.sql(COUNT).await, "1");
    restore(&["--to", &moment, "--table", "orders", "--as", "orders_before"]).ends(3).says("another name");

    // Nobody guesses what is meant by an instant that cannot be had.
    let into = shop.path("restored").display().to_string();
    restore(&["--to", "2999-01-01 00:00:00Z", "--into", &into]).ends(64).says("2999");
    restore(&["--to", "2001-01-01 00:00:00Z", "--into", &into]).ends(3).says(&first[..10]);
    restore(&["--to", "2026-01-01 00:00:00", "--into", &into]).ends(64).says("2026-01-01 00:00:00");
    restore(&["--to", "whenever", "--into", &into]).ends(64).says("latest");
    restore(&["--to", &moment]).ends(64).says("--into");
    assert!(!Path::new(&into).exists());

    // In a folder, for another server, which asks this program for its WAL.
    restore(&["--to", &moment, "--into", &into, "--dry-run"]).ends(0);
    assert!(!Path::new(&into).exists());
    restore(&["--to", &moment, "--into", &into]).ends(0).says("start a server");
    let second = Second::start(&shop, Path::new(&into));
    assert_eq!(second.ask(COUNT).await, "1500");
    drop(second);
}

/// A server on a restored folder, as a person starts one.
struct Second {
    server: Child,
    socket: PathBuf,
    log: PathBuf,
    password: Option<SecretString>,
}

impl Second {
    #[expect(clippy::disallowed_methods, reason = "a server that the program does not know")]
    fn start(shop: &Shop, data: &Path) -> Second {
        let (socket, log) = (shop.path("socket"), shop.path("second.log"));
        fs::create_dir(&socket).unwrap();
        let installation = shop.cluster.installation();
        let mut postgres = Command::new(installation.bin_dir.join("postgres"));
        postgres.arg("-D").arg(data).env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        postgres.stderr(fs::File::create(&log).unwrap());
        let folder = format!("unix_socket_directories={}", socket.display());
        for setting in [&folder, "listen_addresses=", "port=5432", "ssl=off", "fsync=off"] {
            postgres.args(["-c", setting]);
        }
        // What restore_command needs to know.
        postgres.env("PATH", "/usr/bin:/bin").env("HOME", shop.project.home());
        postgres.env("OBYRA_BACKUP_PASSPHRASE", PASSPHRASE).env("OBYRA_DB_CACHE", project::cache());
        if let Some(lib_dir) = &installation.lib_dir {
            postgres.env("LD_LIBRARY_PATH", lib_dir);
        }
        // Root's server runs as whom the files belong to.
        if let Some((uid, gid)) = owner_of_files(data).unwrap() {
            chown(&socket, Some(uid), Some(gid)).unwrap();
            postgres.uid(uid).gid(gid);
        }
        let password = shop.cluster.admin().password().cloned();
        Second { server: postgres.spawn().unwrap(), socket, log, password }
    }

    /// Asks as soon as it answers and has ended its recovery.
    async fn ask(&self, statement: &str) -> String {
        let host = Host::new(self.socket.display().to_string(), 5432);
        let database = Conninfo::new(vec![host], "postgres", "shop").with_password(self.password.clone());
        loop {
            if let Ok(session) = Session::connect(&database, Limits::default()).await
                && session.query_one("SELECT NOT pg_is_in_recovery()", &[]).await.is_ok_and(|row| row.get(0))
            {
                return session.query_one(statement, &[]).await.unwrap().get(0);
            }
            let log = fs::read_to_string(&self.log).unwrap();
            assert!(
                !log.contains("FATAL:  could not") && !log.contains("database system is shut down"),
                "{log}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.server), Signal::INT);
        let _ = self.server.wait();
    }
}

#[test]
fn an_embedded_cluster_goes_back_in_its_own_place() {
    let dev = Dev(Project::empty());
    dev.run(&["init", "--template", "minimal", "--lang", "en"]).ends(0);
    let strategy = fs::read_to_string(dev.0.path().join("obyra-db.toml")).unwrap();
    let backup = "\n[environments.dev.backup]\nenabled = true\npitr = { enabled = true }\n";
    dev.0.write("obyra-db.toml", &format!("{strategy}{backup}"));
    dev.run(&["up", "dev", "--yes"]);
    dev.sql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 500) n").ends(0);
    dev.run(&["backup", "run", "dev"]).ends(0);
    dev.sql("INSERT INTO orders VALUES (501)").ends(0);
    let ask = |sql: &str| {
        dev.run(&["exec", "dev", "--", "psql", "-X", "-A", "-t", "-q", "-c", sql])
            .ends(0)
            .stdout
            .trim()
            .to_owned()
    };
    let moment = ask(NOW);
    dev.sql("DELETE FROM orders").ends(0);
    dev.run(&["backup", "wal", "dev", "--until-caught-up"]).ends(0);
    dev.run(&["backup", "restore", "dev", "--to", &moment]).ends(3).says("--yes");
    assert_eq!(ask(COUNT), "0");
    dev.run(&["backup", "restore", "dev", "--to", &moment, "--yes"]).ends(0).says("data.before-");
    assert_eq!(ask(COUNT), "501");
    let cluster = dev.0.path().join(".obyra-db/clusters/dev");
    let names: Vec<String> =
        fs::read_dir(&cluster).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("data.before-")), "{names:?}");
    // Life goes on, on a timeline of its own.
    dev.sql("INSERT INTO orders VALUES (502)").ends(0);
    dev.run(&["backup", "run", "dev"]).ends(0);
    dev.run(&["backup", "wal", "dev", "--until-caught-up"]).ends(0);
    dev.run(&["backup", "verify", "dev"]).ends(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_named_and_mended() {
    let shop = Shop::open("repository = 'file://DIR/repository'\ncopy_to = 'file://DIR/copy'").await;
    shop.backup("run").ends(0);
    shop.backup("copy").ends(0).says("1 new backup");
    let backups = shop.backups();
    let objects = files(&shop.path("repository"));
    let find = |part: &str| {
        let file = objects.iter().find(|path| path.display().to_string().contains(part)).unwrap();
        let name = file.strip_prefix(shop.path("repository")).unwrap().display().to_string();
        (file.clone(), name)
    };

    let (pack, name) = find("/packs/");
    let whole = fs::read(&pack).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&pack, &flipped).unwrap();
    shop.backup("verify").ends(2).says(&name).says(&format!("concerns {}", backups[0]));
    shop.project.run(&["evidence", "list", "production", "--subject", "backup.verify"]).ends(0).says("FAIL");
    shop.backup("verify --repair").ends(0);
    shop.backup("verify").ends(0);
    assert_eq!(fs::read(&pack).unwrap(), whole);

    // A backup without its WAL is none, and says so everywhere.
    let (segment, name) = find("/wal/");
    fs::rename(&segment, shop.path("aside")).unwrap();
    shop.backup("list").ends(2).says("cannot be restored");
    shop.backup("verify").ends(2).says(&backups[0]);
    shop.backup("drill").ends(3).says(&backups[0]);
    assert_eq!(shop.checklist()["backups"], "failed");
    shop.backup("verify --repair").ends(0);
    assert!(segment.exists(), "{name}");

    // Neither is one without its description.
    let (manifest, name) = find("/backups/");
    fs::write(&manifest, b"nonsense").unwrap();
    shop.backup("list").ends(2).says(&backups[0]);
    // One that is good does not make up for it, and as long as it is not known what it needs nothing goes.
    shop.backup("run").ends(1).says("the first of its line").says(&backups[0]);
    let list = shop.json("list", 2);
    assert_eq!(list["clusters"][0]["backups"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["clusters"][0]["unreadable"][0]["backup"].as_str(), Some(backups[0].as_str()), "{list}");
    shop.backup("verify --repair").ends(0);
    shop.backup("list").ends(0);
    assert_ne!(fs::read(&manifest).unwrap(), b"nonsense", "{name}");

    // A disk that is not there is not a repository without backups that could be filled.
    fs::rename(shop.path("repository"), shop.path("unmounted")).unwrap();
    shop.backup("list").ends(2).says("has no backup yet");
    for verb in ["run", "wal --until-caught-up"] {
        shop.backup(verb).ends(3).says("is not there").says("mount its disk");
    }
    shop.backup("verify").ends(1).says("has no backup yet");
    shop.backup("drill").ends(1).says("backup run production");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_open_it_and_what_goes() {
    let mut shop = Shop::open("retention = '1s'\nkeep = { last = 1 }").await;
    shop.backup("run").ends(0);
    let key = shop.path(".obyra-db/backup.key");
    let identity = fs::read_to_string(&key).unwrap();
    shop.project.set("OBYRA_BACKUP_PASSPHRASE", PASSPHRASE);

    shop.backup("key list").ends(0).says("age1");
    shop.backup("key add --name vault --env OBYRA_BACKUP_PASSPHRASE").ends(0).says("vault");
    shop.backup("key list").ends(0).says("vault: a passphrase");
    shop.backup("key rotate").ends(0).says("vault");
    shop.backup("run").ends(0);
    shop.backup("verify").ends(0);
    shop.backup("key remove --name vault").ends(0);
    shop.backup("key list").ends(0).hides("vault");

    // Without its key, or with another, a repository is closed, and nothing makes a new one.
    fs::rename(&key, shop.path("aside")).unwrap();
    for verb in ["list", "run", "verify", "drill", "key list"] {
        shop.backup(verb).ends(1).says("put the key back");
    }
    assert!(!key.exists());
    fs::write(&key, "another passphrase\n").unwrap();
    shop.backup("list").ends(3).says("opens no key").says("check the passphrase");
    fs::rename(shop.path("aside"), &key).unwrap();

    // What the retention lets go goes with the next backup, or when somebody says so; one always stays.
    while shop.backups().len() > 1 {
        shop.backup("expire --yes").ends(0);
    }
    shop.project
        .run(&["evidence", "list", "production", "--subject", "backup.expire"])
        .ends(0)
        .says("removed");
    let strategy = fs::read_to_string(shop.path("obyra-db.toml")).unwrap();
    shop.project.write("obyra-db.toml", &strategy.replace("last = 1", "last = 2"));
    shop.backup("run").ends(0);
    shop.project.write("obyra-db.toml", &strategy);
    let two = shop.backups();
    let goes = format!("{} goes", two[0]);
    while !shop.backup("expire --dry-run").ends(0).stdout.contains(&goes) {}
    assert_eq!(shop.checklist()["retention"], "failed");
    assert_eq!(shop.backups(), two);
    shop.backup("expire").ends(3).says("--yes");
    shop.backup("expire --yes").ends(0);
    assert_eq!(shop.backups(), two[1..]);
    shop.backup("verify").ends(0);

    let identity = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap().to_owned();
    let url = shop.cluster.loopback();
    let password = url.password().unwrap().expose_secret().to_owned();
    nothing_is_told(&shop, &[PASSPHRASE, &identity, &password]);
}

/// No secret is in an argument of any process, in what is said, or in the ledger.
fn nothing_is_told(shop: &Shop, secrets: &[&str]) {
    let (mut told, mut seen) = (String::new(), BTreeSet::new());
    for words in [&["run"][..], &["list", "--json"], &["verify", "--json"], &["drill"]] {
        let mut arguments = vec!["backup", words[0], "production"];
        arguments.extend(&words[1..]);
        let mut process = shop.project.process(&arguments);
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = process.spawn().unwrap();
        let output = std::thread::spawn(move || process.wait_with_output().unwrap());
        while !output.is_finished() {
            seen.extend(arguments_of_everybody());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let run = Run::of(output.join().unwrap()).ends(0);
        told += &run.stdout;
        told += &run.stderr;
    }
    assert!(seen.iter().any(|line| line.contains("backup\0drill\0production")), "the processes were seen");
    told.extend(seen);
    told += &String::from_utf8_lossy(&fs::read(shop.path(".obyra-db/evidence.sqlite")).unwrap());
    for secret in secrets {
        assert!(!told.contains(secret));
    }
}

fn arguments_of_everybody() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ours = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let ours = ours.map(|line| String::from_utf8_lossy(&line).into_owned());
    ours.filter(|line| line.contains("obyra") || line.contains("postgres")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_nobody_receives_through_is_no_green_line() {
    let shop = Shop::open("").await;
    let strategy = fs::read_to_string(shop.path("obyra-db.toml")).unwrap();
    let narrow =
        strategy.replace("pitr = { enabled = true }", "pitr = { enabled = true, slot_size_max = 1 }");
    assert_ne!(narrow, strategy);
    fs::write(shop.path("obyra-db.toml"), narrow).unwrap();
    shop.backup("run").ends(0);
    shop.backup("wal --until-caught-up").ends(0);
    assert_ne!(shop.checklist()["pitr"], "failed");
    shop.sell(5_000, 15_000).await;
    assert_eq!(shop.checklist()["pitr"], "failed");
    shop.project.run(&["check", "production"]).ends(2).says("nobody receives through the slot obyra_db");
    shop.backup("wal --until-caught-up").ends(0);
    assert_ne!(shop.checklist()["pitr"], "failed");
}
