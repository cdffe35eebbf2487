//! An installation of PostgreSQL: configured, found where distributions put it, or fetched.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use obyra_evidence::{Failure, Progress, text};
use secrecy::ExposeSecret as _;

use super::user::ServerUser;
use super::{fetch, tools};
use crate::{Conninfo, Result};

/// What a cluster cannot be made without.
const REQUIRED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// Where to look for PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct Search {
    /// The configured folder, if any: then nothing else is looked at.
    pub bin_dir: Option<PathBuf>,
    /// Where fetched programs are kept.
    pub cache: PathBuf,
    /// The wanted major version.
    pub major: u32,
}

/// PostgreSQL's programs in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The folder of `postgres`, `initdb`, `pg_ctl`, `pg_dump` and the others.
    pub bin_dir: PathBuf,
    /// Its own libraries, where it brings them: the system's may be older.
    pub lib_dir: Option<PathBuf>,
    /// The major version.
    pub major: u32,
    /// The full version, for example `16.15`.
    pub version: String,
}

impl Installation {
    /// Finds an installation of the wanted major version, or downloads one into the cache.
    pub async fn find_or_fetch(search: &Search, progress: &dyn Progress) -> Result<Installation> {
        if let Some(dir) = &search.bin_dir {
            return configured(dir, search.major).await;
        }
        match Installation::installed(search.major).await {
            Some(found) => Ok(found),
            None => fetch::cached_or_download(search, progress).await,
        }
    }

    /// Finds an installation of this major version on `PATH` or where distributions put it.
    pub async fn installed(major: u32) -> Option<Installation> {
        let user = ServerUser::choose().ok()?;
        let path = env::var_os("PATH").unwrap_or_default();
        for dir in env::split_paths(&path).chain(usual_folders(major)) {
            // PATH often holds links only: the other programs and modules lie beside the real one.
            let Ok(postgres) = dir.join("postgres").canonicalize() else { continue };
            let Some(dir) = postgres.parent().filter(|dir| is_complete(dir) && user.can_reach(dir)) else {
                continue;
            };
            if let Ok(found) = inspect(dir).await
                && found.major == major
            {
                return Some(found);
            }
        }
        None
    }

    /// One of its programs, run by this process's user in a clean environment; the caller adds
    /// arguments and variables.
    pub fn tool(&self, name: &str) -> tokio::process::Command {
        tools::client(&self.bin_dir.join(name), self.lib_dir.as_deref()).into()
    }

    /// The same, with a connection. It goes by environment: an argument would show the password.
    pub fn tool_on(&self, name: &str, database: &Conninfo) -> tokio::process::Command {
        let mut command = self.tool(name);
        for (variable, value) in database.env() {
            command.env(variable, value.expose_secret());
        }
        command
    }

    /// One of its programs, run by the server's user.
    pub(super) fn server_tool(&self, name: &str, user: &ServerUser) -> Command {
        tools::server(&self.bin_dir.join(name), self.lib_dir.as_deref(), user)
    }

    /// Whether a loadable module came with it: distributions package the contributed ones apart.
    pub(super) fn has_module(&self, name: &str) -> bool {
        // Beside `bin`: of a build, of Debian, of Red Hat's packages and of Homebrew.
        ["../lib", "../lib/postgresql", "../lib64/pgsql", "../../lib64/pgsql"].iter().any(|lib| {
            let file = self.bin_dir.join(lib).join(name);
            file.with_extension("so").exists() || file.with_extension("dylib").exists()
        })
    }
}

/// The configured folder, or why it does not do.
async fn configured(dir: &Path, major: u32) -> Result<Installation> {
    let shown = dir.display();
    let incomplete = || {
        Failure::usage(text::cluster::BIN_DIR_INCOMPLETE.with("path", shown.to_string()))
            .mended_by(text::cluster::BIN_DIR_INCOMPLETE_MEND.with("major", major))
    };
    if !is_complete(dir) {
        return Err(incomplete());
    }
    let dir = dir.canonicalize().map_err(|e| incomplete().because(e))?;
    let user = ServerUser::choose()?;
    if !user.can_reach(&dir) {
        let what = text::cluster::BIN_DIR_UNREACHABLE.with("path", &shown).with("user", &user.name);
        return Err(Failure::new(what).mended_by(text::cluster::BIN_DIR_UNREACHABLE_MEND));
    }
    let found = inspect(&dir).await.map_err(|e| incomplete().because(e))?;
    if found.major == major {
        return Ok(found);
    }
    let what = text::cluster::BIN_DIR_VERSION.with("path", &shown).with("found", &found.version);
    Err(Failure::usage(what.with("major", major))
        .mended_by(text::cluster::BIN_DIR_VERSION_MEND.with("major", major)))
}

/// What `postgres --version` says of a folder of programs.
pub(super) async fn inspect(bin_dir: &Path) -> Result<Installation> {
    let user = ServerUser::choose()?;
    let lib_dir = bin_dir.parent().map(|home| home.join("lib")).filter(|lib| lib.join("libpq.so.5").exists());
    let mut command = tools::server(&bin_dir.join("postgres"), lib_dir.as_deref(), &user);
    command.arg("--version");
    let said = tools::run(command, &user).await?;
    let Some((major, version)) = parse_version(&said) else {
        let program = bin_dir.join("postgres");
        return Err(Failure::new(text::cluster::TOOL_FAILED.with("program", program.display())).because(said));
    };
    Ok(Installation { bin_dir: bin_dir.to_path_buf(), lib_dir, major, version })
}

/// `postgres (PostgreSQL) 16.15 (Debian 16.15-1.pgdg12+1)` is 16 and `16.15`.
fn parse_version(said: &str) -> Option<(u32, String)> {
    let version = said.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

pub(super) fn is_complete(bin_dir: &Path) -> bool {
    REQUIRED.iter().all(|program| bin_dir.join(program).is_file())
}

/// Where Debian, Red Hat, Homebrew (on both processors) and a build from source put a version.
fn usual_folders(major: u32) -> Vec<PathBuf> {
    vec![
        format!("/usr/lib/postgresql/{major}/bin").into(),
        format!("/usr/pgsql-{major}/bin").into(),
        format!("/opt/homebrew/opt/postgresql@{major}/bin").into(),
        format!("/usr/local/opt/postgresql@{major}/bin").into(),
        "/usr/local/pgsql/bin".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_kinds() {
        let parsed = |text| parse_version(text).unwrap();
        assert_eq!(parsed("postgres (PostgreSQL) 16.15\n"), (16, "16.15".into()));
        assert_eq!(parsed("postgres (PostgreSQL) 15.10 (Debian 15.10-0+deb12u1)"), (15, "15.10".into()));
        assert_eq!(parsed("postgres (PostgreSQL) 18beta1"), (18, "18beta1".into()));
        assert_eq!(parse_version("pgbouncer 1.2"), None);
    }

    #[tokio::test]
    async fn a_configured_folder_must_hold_the_programs() {
        let dir = tempfile::tempdir().unwrap();
        let failure = configured(dir.path(), 16).await.unwrap_err();
        assert_eq!(failure.exit, obyra_evidence::Exit::Usage);
        assert!(failure.mend.unwrap().to_string().contains("/usr/lib/postgresql/16/bin"));
    }
}
