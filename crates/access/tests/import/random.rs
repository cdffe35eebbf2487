//! Databases nobody would design: random roles, owners, grants and defaults, from fixed seeds.

use std::fmt::Write as _;

use obyra_access::{Policy, Target};
use obyra_postgres::Session;

use crate::support::{Database, faithful, planned, run, statements};

/// How many databases are made up.
const ROUNDS: u64 = 20;

const ROLES: [&str; 7] = ["r0", "r1", "r2", "R three", "r\"4", "r5", "postgres"];
const SCHEMAS: [&str; 3] = ["s0", "S.1", "public"];
const TABLE: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];
const SEQUENCE: [&str; 3] = ["USAGE", "SELECT", "UPDATE"];
const COLUMN: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "REFERENCES"];

/// A small generator of numbers (SplitMix64), so that a failing round can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }

    fn some(&mut self, of: &[&str]) -> String {
        let first = self.one(of);
        let more: Vec<&str> = of.iter().copied().filter(|word| *word != first && self.roll(3) == 0).collect();
        std::iter::once(first).chain(more).collect::<Vec<_>>().join(", ")
    }

    fn role(&mut self) -> String {
        ident(self.one(&ROLES))
    }

    /// A role that is not the connected superuser.
    fn plain_role(&mut self) -> String {
        ident(self.one(&ROLES[..6]))
    }

    /// A grantee, and what may follow it.
    fn grantee(&mut self) -> String {
        match self.roll(5) {
            0 => "PUBLIC".to_owned(),
            1 => format!("{} WITH GRANT OPTION", self.plain_role()),
            _ => self.plain_role(),
        }
    }

    fn schema(&mut self) -> String {
        ident(self.one(&SCHEMAS))
    }
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Roles with their attributes, memberships and settings.
fn roles(dice: &mut Dice, out: &mut Vec<String>) {
    for (at, role) in ROLES[..6].iter().enumerate() {
        let mut words = String::new();
        for word in ["LOGIN", "NOINHERIT", "CREATEDB", "CREATEROLE", "BYPASSRLS", "CONNECTION LIMIT 7"] {
            if dice.roll(3) == 0 {
                let _ = write!(words, " {word}");
            }
        }
        out.push(format!("CREATE ROLE {}{words}", ident(role)));
        if at > 0 && dice.roll(2) == 0 {
            let above = ident(ROLES[dice.roll(at)]);
            let flip = ["TRUE", "FALSE"];
            out.push(format!(
                "GRANT {above} TO {} WITH ADMIN {}, INHERIT {}, SET {}",
                ident(role),
                dice.one(&flip),
                dice.one(&flip),
                dice.one(&flip)
            ));
        }
        let place = if dice.roll(2) == 0 { "" } else { " IN DATABASE shop" };
        let set = ["work_mem = '8MB'", "search_path = s0, public", "role = 'r0'", "DateStyle = 'ISO'"];
        if dice.roll(2) == 0 {
            out.push(format!("ALTER ROLE {}{place} SET {}", ident(role), dice.one(&set)));
        }
    }
    out.push(format!(
        "GRANT {} ON DATABASE shop TO {}",
        dice.some(&["CONNECT", "TEMP", "CREATE"]),
        dice.grantee()
    ));
    if dice.roll(2) == 0 {
        out.push(format!("REVOKE {} ON DATABASE shop FROM PUBLIC", dice.some(&["CONNECT", "TEMP"])));
    }
}

/// Objects of every kind, some of them given away.
fn objects(dice: &mut Dice, out: &mut Vec<String>) {
    for schema in &SCHEMAS {
        let quoted = ident(schema);
        if *schema != "public" {
            out.push(format!("CREATE SCHEMA {quoted} AUTHORIZATION {}", dice.role()));
        }
        for t in 0..1 + dice.roll(9) {
            let table = format!(
                "{quoted}.{}{t}",
                ["log_", "t", "\"x y\""][dice.roll(3)].trim_matches('"').replace(' ', "_")
            );
            out.push(format!("CREATE TABLE {table} (id serial, b text, \"C d\" int)"));
            out.push(format!("ALTER TABLE {table} OWNER TO {}", dice.role()));
            if dice.roll(4) == 0 {
                out.push(format!("CREATE VIEW {table}_v AS SELECT * FROM {table}"));
                out.push(format!("ALTER VIEW {table}_v OWNER TO {}", dice.role()));
            }
            if dice.roll(6) == 0 {
                out.push(format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
                out.push(format!("CREATE POLICY p ON {table}"));
            }
        }
        if dice.roll(2) == 0 {
            out.push(format!(
                "CREATE TABLE {quoted}.parted (id int, b text, \"C d\" int) PARTITION BY LIST (id)"
            ));
            for part in 0..3 {
                out.push(format!(
                    "CREATE TABLE {quoted}.part{part} PARTITION OF {quoted}.parted FOR VALUES IN ({part})"
                ));
            }
        }
        for f in 0..dice.roll(4) {
            out.push(format!("CREATE FUNCTION {quoted}.f{f}(int) RETURNS int LANGUAGE sql AS 'SELECT 1'"));
            out.push(format!(
                "CREATE FUNCTION {quoted}.f{f}(text[], {quoted}.t) RETURNS int LANGUAGE sql AS 'SELECT 1'"
            ));
        }
        out.push(format!("CREATE TYPE {quoted}.mood AS ENUM ('good')"));
        out.push(format!("CREATE SEQUENCE {quoted}.free"));
    }
}

/// One grant, revoke or change of defaults. Some are nonsense, and refused.
fn grant(dice: &mut Dice) -> String {
    let schema = dice.schema();
    let table = format!("{schema}.{}{}", ["log_", "t", "x_y"][dice.roll(3)], dice.roll(9));
    let (to, from) = (dice.grantee(), dice.role());
    match dice.roll(16) {
        0 | 1 => format!("GRANT {} ON ALL TABLES IN SCHEMA {schema} TO {to}", dice.some(&TABLE)),
        2 => format!("GRANT {} ON ALL SEQUENCES IN SCHEMA {schema} TO {to}", dice.some(&SEQUENCE)),
        3 => format!("GRANT {} ON SCHEMA {schema} TO {to}", dice.some(&["USAGE", "CREATE"])),
        4 => format!("GRANT {} ON {table} TO {to}", dice.some(&TABLE)),
        5 => format!("REVOKE {} ON {table} FROM {from}", dice.some(&TABLE)),
        6 => {
            let columns = dice.some(&["id", "b", "\"C d\""]);
            format!("GRANT {} ({columns}) ON {table} TO {to}", dice.one(&COLUMN))
        }
        7 => format!("GRANT SELECT (id, b) ON {schema}.parted TO {to}"),
        8 => format!("GRANT {} ON {schema}.part{} TO {to}", dice.some(&TABLE), dice.roll(3)),
        9 => format!("REVOKE EXECUTE ON FUNCTION {schema}.f{}(int) FROM PUBLIC", dice.roll(4)),
        10 => format!("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {schema} TO {to}"),
        11 => format!("REVOKE USAGE ON TYPE {schema}.mood FROM PUBLIC"),
        12 => format!("GRANT USAGE ON TYPE {schema}.mood TO {to}"),
        13 => format!("GRANT {} ON SEQUENCE {schema}.free TO {to}", dice.some(&SEQUENCE)),
        _ => default(dice),
    }
}

fn default(dice: &mut Dice) -> String {
    let place = if dice.roll(3) == 0 { String::new() } else { format!(" IN SCHEMA {}", dice.schema()) };
    let alter = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}{place}", dice.role());
    let to = dice.grantee();
    match dice.roll(6) {
        0 | 1 => format!("{alter} GRANT {} ON TABLES TO {to}", dice.some(&TABLE)),
        2 => format!("{alter} GRANT {} ON SEQUENCES TO {to}", dice.some(&SEQUENCE)),
        3 => format!("{alter} GRANT EXECUTE ON ROUTINES TO {to}"),
        4 => format!("{alter} REVOKE EXECUTE ON ROUTINES FROM PUBLIC"),
        _ => format!("{alter} GRANT USAGE ON TYPES TO {to}"),
    }
}

/// Runs a statement that may be refused, as some role.
async fn try_as(session: &Session, role: Option<String>, statement: &str) {
    run(session, "SAVEPOINT attempt").await;
    let set = role.map(|role| format!("SET LOCAL ROLE {role}; ")).unwrap_or_default();
    if session.batch_execute(&format!("{set}{statement}; SET LOCAL ROLE NONE")).await.is_err() {
        run(session, "ROLLBACK TO attempt").await;
    }
}

#[tokio::test]
async fn whatever_there_is_can_be_written_and_kept() {
    for (major, rounds) in versions() {
        whatever_there_is(&Database::on(major).await, rounds).await;
    }
}

async fn whatever_there_is(database: &Database, rounds: u64) {
    for seed in 0..rounds {
        let mut dice = Dice(seed);
        let admin = &database.admin;
        make_up(admin, &mut dice).await;
        let (imported, target) = faithful(admin).await;
        for _ in 0..5 {
            let statement = grant(&mut dice);
            try_as(admin, None, &statement).await;
        }
        mended(admin, (&imported.policy, &imported.toml), &target).await;
        run(admin, "ROLLBACK").await;
    }
}

#[tokio::test]
async fn also_by_an_administrator_without_superuser() {
    for (major, rounds) in versions() {
        without_superuser(&Database::on(major).await, rounds).await;
    }
}

async fn without_superuser(database: &Database, rounds: u64) {
    database
        .run(&[
            "CREATE ROLE master LOGIN CREATEROLE CREATEDB BYPASSRLS PASSWORD 'secret'",
            "ALTER DATABASE shop OWNER TO master",
        ])
        .await;
    let master = database.session_of("master").await;
    // What it creates it can then also be, so that more of the nonsense succeeds.
    if master.version().at_least(16) {
        run(&master, "SET createrole_self_grant = 'set, inherit'").await;
    }
    for seed in 0..rounds {
        make_up(&master, &mut Dice(seed)).await;
        faithful(&master).await;
        run(&master, "ROLLBACK").await;
    }
}

/// `OBYRA_ROUNDS` asks for more of them than a test run should take.
fn versions() -> [(u32, u64); 3] {
    let rounds = std::env::var("OBYRA_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    [(16, rounds), (14, rounds / 3), (18, rounds / 3)]
}

/// Before PostgreSQL 16 a membership has no options but one.
fn as_the_server_says_it(admin: &Session, statement: &str) -> String {
    match statement.split_once(" WITH ADMIN ") {
        Some((grant, options)) if !admin.version().at_least(16) => {
            format!("{grant}{}", if options.starts_with("TRUE") { " WITH ADMIN OPTION" } else { "" })
        }
        _ => statement.to_owned(),
    }
}

/// Makes up a database inside of a transaction, which the caller takes back.
async fn make_up(admin: &Session, dice: &mut Dice) {
    println!("seed {}", dice.0);
    run(admin, "BEGIN").await;
    let mut build = Vec::new();
    roles(dice, &mut build);
    objects(dice, &mut build);
    for statement in build {
        try_as(admin, None, &as_the_server_says_it(admin, &statement)).await;
    }
    for _ in 0..60 {
        // Now and then as somebody who may have a grant option.
        let role = (dice.roll(4) == 0).then(|| dice.plain_role());
        let statement = grant(dice);
        try_as(admin, role, &statement).await;
    }
}

/// What was done by hand is undone by the plan, and by nothing else: the import is the same again.
async fn mended(admin: &Session, (policy, toml): (&Policy, &str), target: &Target) {
    let plan = planned(admin, policy, target).await;
    for statement in statements(&plan) {
        run(admin, statement).await;
    }
    let left = planned(admin, policy, target).await;
    assert_eq!(statements(&left), [""; 0], "after {:#?}", statements(&plan));
    let (again, _) = faithful(admin).await;
    assert_eq!(again.toml, toml, "after {:#?}", statements(&plan));
}
