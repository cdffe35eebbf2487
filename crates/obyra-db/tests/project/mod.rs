//! A project folder with a strategy, and the program run in it as a user would.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

/// A strategy for a server that `$ADMIN_URL` reaches.
pub const PRODUCTION: &str = r#"
state_dir = ".obyra-db"

[environments.production]
runs_on = "self-hosted"
url_env = "ADMIN_URL"
database = "obyra"
schemas = { app = "app", audit = "audit" }

[secrets]
store = "env"

[access]
owner = "obyra_owner"

[access.roles.obyra_app]
schemas = { app = "read-write", audit = "append" }

[access.roles.obyra_readonly]
schemas = { app = "read" }

[access.sensitive]
"app.users" = { obyra_readonly = ["id", "name"] }
"#;

/// A folder, a home that must stay empty, and the variables that a shell would have.
pub struct Project {
    folder: TempDir,
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl Project {
    /// An empty folder.
    pub fn empty() -> Project {
        // The server's user must be able to enter it where the tests run as root.
        let open = |dir: TempDir| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            dir
        };
        let folder = open(TempDir::with_prefix("obyra-db-test-").unwrap());
        Project { folder, home: open(TempDir::new().unwrap()), variables: Vec::new() }
    }

    /// A folder with this strategy.
    pub fn with(strategy: &str) -> Project {
        let project = Project::empty();
        project.write("obyra-db.toml", strategy);
        project
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let file = self.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Sets a variable for every run from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// The program, with these arguments, in a clean environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        Command::from_std(self.process(arguments))
    }

    /// The same as a process that a test can interrupt.
    #[expect(clippy::disallowed_methods, reason = "the program itself is what these tests run")]
    pub fn process(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_obyra-db"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("OBYRA_DB_CACHE", cache())
            .envs(pip_settings())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program.
    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }
}

/// Where a network asks for a certificate or a mirror of its own, pip must be told so too.
fn pip_settings() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(name, _)| name.starts_with("PIP_") || name.starts_with("SSL_CERT"))
}

/// The cache that all tests share, so that PostgreSQL is downloaded once.
pub fn cache() -> PathBuf {
    std::env::var_os("OBYRA_DB_CACHE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/obyra-db-cache"),
        PathBuf::from,
    )
}

/// What a run printed and how it ended.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Run {
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Demands an exit code, and shows everything where it is another.
    #[track_caller]
    pub fn ends(self, code: i32) -> Run {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Demands a text on either stream.
    #[track_caller]
    pub fn says(self, text: &str) -> Run {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(found, "{text:?} is not in\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Demands that a text is nowhere.
    #[track_caller]
    pub fn hides(self, text: &str) -> Run {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(!found, "{text:?} is in\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// A copy of an example as it is in the repository.
pub fn example(name: &str) -> Project {
    let project = Project::empty();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name), project.path());
    project
}

/// The example application, and OBYRA's strategy beside it.
pub fn application() -> Project {
    let project = example("obyra-mini");
    // Somebody may have tried the example in place; these tests want the template.
    let _ = std::fs::remove_file(project.path().join("obyra-db.toml"));
    project.run(&["init", "--lang", "en"]).ends(0);
    project
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if [".venv", ".obyra-db", "__pycache__"].iter().any(|skipped| name == *skipped) {
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
pub struct Dev(pub Project);

impl Drop for Dev {
    fn drop(&mut self) {
        self.0.run(&["down", "dev"]);
    }
}

impl Dev {
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.0.run(arguments)
    }

    pub fn sql(&self, sql: &str) -> Run {
        self.run(&["exec", "dev", "--", "psql", "-X", "-q", "-c", sql])
    }
}
