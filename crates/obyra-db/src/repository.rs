//! The backup repository of an environment: where it is, what opens it, which clusters of it are meant.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use obyra_backup::ServerSideEncryption;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::layout::{ClusterId, REPOSITORY};
use obyra_backup::repository::store::{Options, ServerSide, Store, Variables};
use obyra_evidence::{Failure, Outcome, Record, text};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::NamedTempFile;

use crate::environment::Opened;

/// Opens the repository, and makes it where there is none.
pub async fn open_or_create(opened: &Opened<'_>) -> Result<Repository, Failure> {
    let store = store(opened)?;
    if store.get(REPOSITORY).await?.is_none() && has_been_backed_up_into(opened, &store)? {
        return Err(Failure::refused(text::backup::REPOSITORY_GONE.with("store", store.url()))
            .mended_by(text::backup::REPOSITORY_GONE_MEND));
    }
    let unlock = match unlock(opened)? {
        Some(unlock) => unlock,
        None => generate(opened, &store).await?,
    };
    Repository::open_or_create(store, &unlock).await
}

/// Whether the ledger knows of a backup in a store: then a repository that is not there was not never made, but
/// is lost, or its disk is not mounted.
fn has_been_backed_up_into(opened: &Opened<'_>, store: &Store) -> Result<bool, Failure> {
    let into = |record: &Record| {
        record.outcome == Outcome::Changed
            && record.facts.get(REPOSITORY_FACT).is_some_and(|url| url == store.url())
    };
    opened.any("backup.run", into)
}

/// What the record of a backup calls the address of its repository.
pub const REPOSITORY_FACT: &str = "repository";

/// Opens the repository; `None` where there is none yet.
pub async fn existing(opened: &Opened<'_>) -> Result<Option<Repository>, Failure> {
    let store = store(opened)?;
    if store.get(REPOSITORY).await?.is_none() {
        return Ok(None);
    }
    let unlock = unlock(opened)?.ok_or_else(|| no_key(opened, &store))?;
    Repository::open(store, &unlock).await.map(Some)
}

/// Opens the repository that must be there.
pub async fn required(opened: &Opened<'_>) -> Result<Repository, Failure> {
    existing(opened).await?.ok_or_else(|| none_yet(opened))
}

/// There is no backup, and the command that takes one.
pub fn none_yet(opened: &Opened<'_>) -> Failure {
    Failure::new(text::backup::NONE_YET.with("environment", opened.name()))
        .mended_by(text::cli::RUN.with("command", format!("obyra-db backup run {}", opened.name())))
}

/// The clusters of the repository whose newest backup was taken for this environment, the newest last: after a
/// new initdb or an upgrade there are several.
pub async fn clusters_of(opened: &Opened<'_>, repository: &Repository) -> Result<Vec<ClusterId>, Failure> {
    let mut found = Vec::new();
    for cluster in repository.clusters().await? {
        let backups = catalogue::backups(repository, cluster).await?;
        let newest = backups.iter().rev().find_map(|listed| listed.header.as_ref().ok());
        match newest {
            Some(header) if header.environment == opened.name() => {
                found.push((Some(header.stopped), cluster))
            }
            // Whose it is cannot be read any more: what is broken is told rather than passed over.
            None if !backups.is_empty() => found.push((None, cluster)),
            _ => {}
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, cluster)| cluster).collect())
}

/// Where the repository is: as the strategy says, else in the state folder.
pub fn store(opened: &Opened<'_>) -> Result<Store, Failure> {
    let policy = &opened.environment.backup;
    store_at(opened, policy.repository.as_deref(), policy.server_side_encryption)
}

/// The second repository, for copies and repairs.
pub fn copy_store(opened: &Opened<'_>) -> Result<Store, Failure> {
    let policy = &opened.environment.backup;
    let Some(url) = policy.copy_to.as_deref() else {
        return Err(Failure::usage(text::backup::NO_COPY.with("environment", opened.name()))
            .mended_by(text::backup::NO_COPY_MEND));
    };
    store_at(opened, Some(url), policy.server_side_encryption)
}

/// A store by its address, and without one in the state folder.
pub fn store_at(
    opened: &Opened<'_>,
    url: Option<&str>,
    encryption: ServerSideEncryption,
) -> Result<Store, Failure> {
    let Some(url) = url else { return Store::folder(&opened.strategy.state_dir.join("backups")) };
    let policy = &opened.environment.backup;
    let options = Options {
        endpoint: policy.endpoint.clone(),
        region: policy.region.clone(),
        server_side: match encryption {
            ServerSideEncryption::Store => Some(ServerSide::Aes256),
            ServerSideEncryption::Kms => Some(ServerSide::Kms(None)),
            ServerSideEncryption::None => None,
        },
        bytes_per_second: NonZeroU64::new(u64::from(policy.rate_max) * 1_000_000),
        variables: Variables::of_process(),
        ..Options::default()
    };
    Store::open(url, &options)
}

/// What opens the repository, as the strategy says; `None` where the key of the state folder is not made yet.
pub fn unlock(opened: &Opened<'_>) -> Result<Option<Unlock>, Failure> {
    if !opened.environment.backup.encrypted {
        return Ok(Some(Unlock::Open));
    }
    let key = &opened.environment.backup.key;
    if let Some(variable) = &key.env {
        return secret_of_variable(variable).map(Unlock::read).map(Some);
    }
    let file = key_file(opened);
    match std::fs::read_to_string(&file) {
        Ok(secret) => Ok(Some(Unlock::read(SecretString::from(secret)))),
        Err(error) if error.kind() == ErrorKind::NotFound && key.file.is_none() => Ok(None),
        Err(error) => Err(Failure::new(text::backup::KEY_FILE.with("file", file.display())).because(error)),
    }
}

/// The secret that a variable holds.
pub fn secret_of_variable(variable: &str) -> Result<SecretString, Failure> {
    match std::env::var(variable) {
        Ok(secret) if !secret.trim().is_empty() => Ok(SecretString::from(secret)),
        _ => Err(Failure::new(text::backup::KEY_VARIABLE.with("variable", variable))
            .mended_by(text::backup::KEY_VARIABLE_MEND.with("variable", variable))),
    }
}

/// Where the key is: as the strategy says, else in the state folder.
pub fn key_file(opened: &Opened<'_>) -> PathBuf {
    match &opened.environment.backup.key.file {
        Some(file) => opened.strategy.folder.join(file),
        None => opened.strategy.state_dir.join("backup.key"),
    }
}

/// Makes the key of the state folder. Never beside a repository that exists: its key was another. Where two
/// programs begin at once, both take the key of the one that was first.
async fn generate(opened: &Opened<'_>, store: &Store) -> Result<Unlock, Failure> {
    let there = || unlock(opened)?.ok_or_else(|| no_key(opened, store));
    if store.get(REPOSITORY).await?.is_some() {
        return there();
    }
    let file = key_file(opened);
    // The state folder is made with its ledger.
    opened.can_record()?;
    let unlock = Unlock::generate();
    let Unlock::Identity(identity) = &unlock else { return Ok(unlock) };
    match write_key(&file, identity) {
        Ok(()) => opened.invocation.printer.note(text::backup::KEY_MADE.with("file", file.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return there(),
        Err(error) => {
            return Err(Failure::new(text::backup::KEY_FILE.with("file", file.display())).because(error));
        }
    }
    Ok(unlock)
}

/// All of it or nothing, never over another.
fn write_key(file: &Path, identity: &SecretString) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut whole = NamedTempFile::new_in(folder)?;
    writeln!(
        whole,
        "# opens the backups of obyra-db; without it nothing can be restored: keep a copy elsewhere"
    )?;
    writeln!(whole, "{}", identity.expose_secret())?;
    whole.as_file().sync_all()?;
    whole.persist_noclobber(file)?;
    File::open(folder)?.sync_all()
}

fn no_key(opened: &Opened<'_>, store: &Store) -> Failure {
    let file = key_file(opened);
    Failure::new(text::backup::NO_KEY.with("store", store.url()).with("file", file.display()))
        .mended_by(text::backup::NO_KEY_MEND.with("file", file.display()))
}
