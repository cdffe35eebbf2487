//! What CI servers read of the gate and of the scan keeps to the schemas that are published for it.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;
mod published;

use project::{Project, example};
use published::Published;
use serde_json::{Value, json};

fn sarif(project: &Project, arguments: &[&str], code: i32) -> Value {
    let run = project.run(&[arguments, &["--format", "sarif"]].concat()).ends(code);
    published::demand(Published::Sarif, &run.stdout);
    let log: Value = serde_json::from_str(&run.stdout).unwrap();
    // What the schema cannot say: a result's rule is the one that its index names.
    let run = &log["runs"][0];
    for result in run["results"].as_array().unwrap() {
        let rule = &run["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"], "{result}");
    }
    log
}

fn results(log: &Value) -> &[Value] {
    log["runs"][0]["results"].as_array().unwrap()
}

#[test]
fn sarif_keeps_to_the_schema_of_oasis() {
    let broken = example("obyra-broken");
    // A name that a reference cannot hold as it is.
    broken.write("año, 50% [x]/#1?.py", "db.create_all()\n");
    let scan = sarif(&broken, &["migrate", "scan", "."], 2);
    assert!(results(&scan).len() > 10, "{scan}");
    assert!(scan.to_string().contains("a%C3%B1o%2C%2050%25%20%5Bx%5D/%231%3F.py"), "{scan}");
    let gate = sarif(&broken, &["migrate", "gate", "--config", "tangled.toml"], 2);
    assert!(results(&gate).len() > 3, "{gate}");
    let replayed = sarif(&broken, &["migrate", "gate", "--config", "stuck.toml"], 2);
    assert!(!results(&replayed).is_empty());

    let empty = Project::empty();
    empty.write("nothing.py", "");
    assert_eq!(results(&sarif(&empty, &["migrate", "scan", "."], 0)), [0; 0]);

    // The check itself can fail.
    let mut wrong = scan;
    wrong["runs"][0]["results"][0]["level"] = json!("fatal");
    let (valid, said) = published::check(Published::Sarif, &wrong.to_string());
    assert!(!valid && said.contains("fatal"), "{said}");
}
