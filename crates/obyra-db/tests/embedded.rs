//! Dev on an embedded cluster, from nothing to the checklist, with the example application.

mod project;

use project::{Project, Run};

/// The example application, and OBYRA's strategy beside it.
fn application() -> Project {
    let project = Project::empty();
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/obyra-mini");
    copy(&example, project.path());
    project.run(&["init", "--lang", "en"]).ends(0);
    project
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if [".venv", ".obyra-db", "__pycache__", "obyra-db.toml"].iter().any(|skipped| name == *skipped) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Stops the cluster however the test ends.
struct Dev(Project);

impl Drop for Dev {
    fn drop(&mut self) {
        self.0.run(&["down", "dev"]);
    }
}

impl Dev {
    fn run(&self, arguments: &[&str]) -> Run {
        self.0.run(arguments)
    }

    fn sql(&self, sql: &str) -> Run {
        self.run(&["exec", "dev", "--", "psql", "-X", "-q", "-c", sql])
    }
}

#[test]
fn from_nothing_to_the_checklist_and_again() {
    let dev = Dev(application());
    // The backup, the monitor and the gate are not built yet: unknown is never green.
    dev.run(&["up", "dev", "--yes"]).ends(2).says("isolate_organizations").says("unknown");
    dev.run(&["plan", "dev"]).ends(0);
    dev.run(&["migrate", "status", "dev"]).ends(0);
    dev.run(&["seed", "status", "dev"]).ends(0);
    dev.run(&["evidence", "verify"]).ends(0);

    let records = |dev: &Dev| dev.run(&["evidence", "list", "dev", "--subject", "access", "--json"]).ends(0).stdout;
    let before = records(&dev);
    dev.run(&["apply", "dev", "--yes"]).ends(0);
    assert_eq!(before, records(&dev), "a second apply changes nothing and records nothing");
}

#[test]
fn a_grant_by_hand_is_named_mended_and_remembered() {
    let dev = Dev(application());
    dev.run(&["up", "dev", "--yes"]);
    dev.sql("GRANT UPDATE ON users TO obyra_readonly").ends(0);
    dev.run(&["plan", "dev"]).ends(2).says("users").says("obyra_readonly").says("REVOKE");
    dev.run(&["apply", "dev"]).ends(3).says("--yes");
    dev.run(&["apply", "dev", "--yes"]).ends(0);
    dev.run(&["plan", "dev"]).ends(0);
    dev.run(&["evidence", "list", "dev", "--subject", "access.apply"]).ends(0).says("users");
}

#[test]
fn dev_may_lose_its_data_and_nothing_else_may() {
    let dev = Dev(application());
    dev.run(&["up", "dev", "--yes"]);
    dev.sql("CREATE TABLE public.by_hand (id int)").ends(0);
    dev.run(&["up", "dev", "--recreate"]).ends(3);
    dev.sql("SELECT * FROM by_hand").ends(0);
    dev.run(&["up", "dev", "--recreate", "--yes"]);
    dev.sql("SELECT * FROM by_hand").ends(1);
}
