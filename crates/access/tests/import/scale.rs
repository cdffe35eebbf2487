//! Two thousand tables and sequences, fifty roles, 55,000 entries in access control lists.

use std::time::{Duration, Instant};

use obyra_access::policy::Mode;
use obyra_access::{Policy, Target, import, observe};

use crate::support::{Database, faithful};

/// Roles, ten schemas of two hundred tables, a hundred views and functions, and their grants.
fn statements() -> Vec<String> {
    let mut all = Vec::new();
    let roles = |prefix: &str, count: usize, word: &str| {
        (1..=count).map(|i| format!("CREATE ROLE {prefix}{i} {word};")).collect::<String>()
    };
    all.push(roles("own", 5, "NOLOGIN") + &roles("grp", 20, "NOLOGIN") + &roles("usr", 25, "LOGIN"));
    all.push((1..=25).map(|i| format!("GRANT grp{} TO usr{i};", 1 + i % 20)).collect());
    for s in 1..=10 {
        let owner = 1 + s % 5;
        let mut make = format!("CREATE SCHEMA s{s} AUTHORIZATION own{owner}; SET ROLE own{owner};");
        for t in 1..=200 {
            make += &format!("CREATE TABLE s{s}.t{t} (id serial PRIMARY KEY, name text);");
        }
        for i in 1..=10 {
            make += &format!("CREATE VIEW s{s}.v{i} AS SELECT id, name FROM s{s}.t{i};");
            make += &format!("CREATE FUNCTION s{s}.f{i}(a int) RETURNS int LANGUAGE sql AS 'SELECT $1';");
        }
        all.push(make + "RESET ROLE");
        all.push((0..4).map(|g| grants(s, owner, g)).collect());
    }
    all
}

/// What one of the four groups of a schema is granted.
fn grants(s: usize, owner: usize, g: usize) -> String {
    let to = 1 + (s * 2 + g) % 20;
    let (tables, sequences) =
        if g < 2 { ("SELECT, INSERT, UPDATE, DELETE", "USAGE, SELECT") } else { ("SELECT", "SELECT") };
    let future = format!("ALTER DEFAULT PRIVILEGES FOR ROLE own{owner} IN SCHEMA s{s} GRANT");
    format!(
        "GRANT USAGE ON SCHEMA s{s} TO grp{to};
         GRANT {tables} ON ALL TABLES IN SCHEMA s{s} TO grp{to};
         GRANT {sequences} ON ALL SEQUENCES IN SCHEMA s{s} TO grp{to};
         {future} {tables} ON TABLES TO grp{to};
         {future} {sequences} ON SEQUENCES TO grp{to};"
    )
}

#[tokio::test]
async fn two_thousand_tables_fit_on_a_page_and_nothing_changes() {
    let database = Database::empty().await;
    database.run(&statements()).await;
    let (imported, target) = faithful(&database.admin).await;
    let lines = imported.toml.lines().count();
    assert!(lines <= 100, "{lines} lines:\n{}", imported.toml);
    assert!(imported.policy.objects.is_empty(), "{}", imported.toml);

    let observed = observe(&database.admin, &Policy::default(), &Target::default()).await.unwrap();
    let start = Instant::now();
    import(&observed, &target, Mode::Authoritative);
    let took = start.elapsed();
    println!("{lines} lines in {took:?}\n{}", imported.toml);
    assert!(took < Duration::from_secs(2), "{took:?} without optimisation");
}
