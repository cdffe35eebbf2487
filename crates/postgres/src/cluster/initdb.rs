//! Making a cluster's data folder: whole or not at all.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use obyra_evidence::{Failure, text};
use rustix::process::Signal;
use secrecy::SecretString;

use super::files;
use super::install::Installation;
use super::layout::Layout;
use super::user::ServerUser;
use super::{processes, server, settings, tools};
use crate::{Result, generate_password};

/// The superuser of every cluster.
pub(super) const SUPERUSER: &str = "postgres";

/// The options that shape a data folder; part of the name of a cached one.
pub(super) const OPTIONS: [&str; 7] = [
    "--username=postgres",
    "--encoding=UTF8",
    "--data-checksums",
    "--auth-host=scram-sha-256",
    "--auth-local=scram-sha-256",
    "--no-instructions",
    "--locale",
];

/// Tried in order: not every system has the first.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// Makes the data folder with a new superuser password, if it is not there yet. What an interrupted
/// attempt left is removed first.
pub(super) async fn ensure(layout: &Layout, installation: &Installation, user: &ServerUser) -> Result<()> {
    if layout.is_made() {
        return Ok(());
    }
    let fresh = layout.root.join("data.new");
    clear_attempt(&fresh, layout, user).await?;
    let password = generate_password()?;
    // Before the data folder, so that a finished cluster always has its password.
    files::write_secret(&layout.password(), &password, None)?;
    let made = make(&fresh, installation, user, &password).await;
    if made.is_err() {
        // The reason of the failure matters more than the remains.
        let _ = files::remove_tree(&fresh);
    }
    made?;
    files::rename(&fresh, &layout.data())
}

/// Removes what an interrupted attempt left. The initdb of a killed program goes on without it, and
/// for a moment the server that it drives goes on without initdb.
async fn clear_attempt(fresh: &Path, layout: &Layout, user: &ServerUser) -> Result<()> {
    for orphan in processes::on_folder(fresh, user) {
        // Asked kindly, it takes its shared memory with it.
        server::kill(orphan, Signal::TERM, layout)?;
    }
    let removed = || processes::on_folder(fresh, user).is_empty() && files::remove_tree(fresh).is_ok();
    if server::wait_until(removed, server::ORPHAN_LIMIT).await { Ok(()) } else { files::remove_tree(fresh) }
}

async fn make(
    fresh: &Path,
    installation: &Installation,
    user: &ServerUser,
    password: &SecretString,
) -> Result<()> {
    // The server's user reads the password from a file of its own, which then goes.
    let pwfile = fresh.with_extension("password");
    files::write_secret(&pwfile, password, user.owner())?;
    let mut outcome = Ok(());
    for locale in LOCALES {
        files::remove_tree(fresh)?;
        files::make_dir(fresh, 0o700)?;
        user.own(fresh)?;
        let mut command = installation.server_tool("initdb", user);
        command.args(OPTIONS).arg(locale).arg("--pwfile").arg(&pwfile).arg("-D").arg(fresh);
        outcome = tools::run(command, user).await.map(drop);
        match &outcome {
            Err(failure) if complains_of(failure, "invalid locale") => {}
            _ => break,
        }
    }
    files::remove(&pwfile)?;
    outcome.map_err(|failure| explain(failure, fresh, user))?;
    include_settings(&fresh.join("postgresql.conf"))
}

fn include_settings(config: &Path) -> Result<()> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new().append(true).custom_flags(no_follow).open(config);
    let appended = opened.and_then(|mut file| file.write_all(settings::INCLUDE.as_bytes()));
    appended.map_err(|e| files::failed(config, &e))
}

fn complains_of(failure: &Failure, words: &str) -> bool {
    failure.why.as_deref().is_some_and(|why| why.contains(words))
}

/// Adds what mends the usual causes.
fn explain(failure: Failure, fresh: &Path, user: &ServerUser) -> Failure {
    if complains_of(&failure, "could not look up effective user ID") {
        return failure.mended_by(text::cluster::UNKNOWN_USER_MEND.with("uid", user.uid));
    }
    if complains_of(&failure, "No space left on device") {
        return failure.mended_by(text::cluster::DISK_FULL_MEND.with("path", fresh.display()));
    }
    failure
}
