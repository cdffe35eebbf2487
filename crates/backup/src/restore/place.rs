//! The folder that a cluster is restored into: what is there, what would be removed, whether there is room.
//!
//! Only looks. A running cluster's folder, another cluster's, and a folder with other things in it are
//! refused here.

mod strangers;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, HumanBytes, text};
use obyra_postgres::cluster;
use serde::Serialize;

use super::control::{self, Control};
use crate::Result;
use crate::repository::catalogue::Manifest;

/// Written first and removed last: what a restore in this folder was about.
pub(crate) const MARKER: &str = "obyra-db.restoring";

/// Where a cluster is restored to.
#[derive(Clone, Debug, Default)]
pub struct Into {
    /// The data directory.
    pub data: PathBuf,
    /// The folders of tablespaces, by oid. One that is not named stays where a cluster in the data directory
    /// has it; else it goes into `<data directory>.tablespaces/<oid>`, never to the place that it had.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Whether the folder of another cluster may be overwritten.
    pub other_cluster: bool,
}

/// What the folder is before the restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Absent or empty.
    Empty,
    /// A cluster: only what differs is written.
    Cluster,
    /// What an interrupted restore left: it goes on.
    Interrupted,
}

/// A folder that can be restored into.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The data directory.
    pub data: PathBuf,
    /// What it is now.
    pub state: State,
    /// The tablespaces.
    pub tablespaces: Vec<Mapped>,
    /// What is there and not in the backup: it is removed.
    pub removed: Vec<PathBuf>,
    /// To whom everything is given, as user and group, if not to this process's user.
    #[serde(skip)]
    pub(super) owner: Option<(u32, u32)>,
    /// Bytes that have to be found on its file systems.
    pub needed_bytes: u64,
}

/// A tablespace and its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapped {
    /// Its oid.
    pub oid: u32,
    /// Where it was.
    pub was: String,
    /// Where it goes.
    pub folder: PathBuf,
}

impl Place {
    /// Looks at a folder for a backup.
    pub fn look(manifest: &Manifest, into: &Into) -> Result<Place> {
        let data = std::path::absolute(&into.data).map_err(|e| failed(&into.data, &e))?;
        if let Some(pid) = cluster::server_in(&data)? {
            let what = text::backup::RESTORE_SERVER_RUNS.with("folder", data.display()).with("pid", pid);
            return Err(Failure::refused(what).mended_by(text::backup::RESTORE_SERVER_RUNS_MEND));
        }
        let state = state(&data)?;
        if state == State::Cluster && !into.other_cluster {
            same_cluster(manifest, &data)?;
        }
        let mut place = Place {
            owner: cluster::owner_of_files(&data)?,
            tablespaces: tablespaces(manifest, into, &data)?,
            data,
            state,
            removed: Vec::new(),
            needed_bytes: 0,
        };
        place.removed = strangers::find(manifest, &place)?;
        place.needed_bytes = room(manifest, &place)?;
        Ok(place)
    }

    /// Where a path of the manifest lies.
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        for mapped in &self.tablespaces {
            let below = relative.strip_prefix("pg_tblspc/").and_then(|rest| {
                let rest = rest.strip_prefix(&mapped.oid.to_string())?;
                rest.strip_prefix('/').or_else(|| rest.is_empty().then_some(""))
            });
            match below {
                Some("") => return mapped.folder.clone(),
                Some(below) => return mapped.folder.join(below),
                None => {}
            }
        }
        self.data.join(relative)
    }

    /// The folders that hold the cluster, each perhaps on a file system of its own.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        let mut roots = vec![self.data.clone()];
        roots.extend(self.tablespaces.iter().map(|mapped| mapped.folder.clone()));
        let wal = self.data.join("pg_wal");
        if wal.is_symlink() {
            roots.push(wal);
        }
        roots
    }
}

/// A failure of the operating system at a path.
pub(crate) fn failed(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(text::backup::RESTORE_PATH_FAILED.with("path", path.display())).because(error);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.mended_by(text::backup::RESTORE_DISK_FULL_MEND)
        }
        _ => failure,
    }
}

/// The first bytes of a file; `None` if it is absent.
pub(super) fn read_some(path: &Path, most: usize) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(most as u64).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

fn state(data: &Path) -> Result<State> {
    if data.join(MARKER).exists() {
        return Ok(State::Interrupted);
    }
    if is_empty(data)? {
        return Ok(State::Empty);
    }
    if data.join("PG_VERSION").is_file() && data.join("base").is_dir() && data.join("global").is_dir() {
        return Ok(State::Cluster);
    }
    let what = text::backup::RESTORE_FOLDER_IN_USE.with("folder", data.display());
    Err(Failure::refused(what).mended_by(text::backup::RESTORE_FOLDER_IN_USE_MEND))
}

/// A file system's own folder does not count.
fn is_empty(folder: &Path) -> Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.all(|entry| entry.is_ok_and(|e| e.file_name() == "lost+found"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed(folder, &error)),
    }
}

fn same_cluster(manifest: &Manifest, data: &Path) -> Result<()> {
    let control = read_some(&data.join(control::PATH), 8192)?;
    let Some(control) = control.as_deref().and_then(Control::parse) else { return Ok(()) };
    let ours = &manifest.header.cluster.system_identifier;
    if control.system_identifier.to_string() == *ours {
        return Ok(());
    }
    let what = text::backup::RESTORE_OTHER_CLUSTER
        .with("folder", data.display())
        .with("found", control.system_identifier)
        .with("wanted", ours);
    Err(Failure::refused(what).mended_by(text::backup::RESTORE_OTHER_CLUSTER_MEND))
}

/// Each tablespace outside the data directory with its folder: never the one of production by default.
fn tablespaces(manifest: &Manifest, into: &Into, data: &Path) -> Result<Vec<Mapped>> {
    let known: Vec<u32> = manifest.header.tablespaces.iter().map(|tablespace| tablespace.oid).collect();
    if let Some(oid) = into.tablespaces.keys().find(|oid| !known.contains(oid)) {
        return Err(Failure::usage(text::backup::RESTORE_NO_SUCH_TABLESPACE.with("oid", oid)));
    }
    let mut mapped: Vec<Mapped> = Vec::new();
    for tablespace in &manifest.header.tablespaces {
        let oid = tablespace.oid;
        let there = fs::read_link(data.join("pg_tblspc").join(oid.to_string())).ok();
        let wanted = into.tablespaces.get(&oid).cloned();
        let by_default = || data.with_added_extension("tablespaces").join(oid.to_string());
        let folder = wanted.or_else(|| there.clone()).unwrap_or_else(by_default);
        let folder = std::path::absolute(&folder).map_err(|e| failed(&folder, &e))?;
        let is_shared = mapped.iter().any(|other| other.folder == folder) || folder.starts_with(data);
        if is_shared || (there.as_ref() != Some(&folder) && !is_empty(&folder)?) {
            let what = text::backup::RESTORE_TABLESPACE_IN_USE.with("folder", folder.display());
            return Err(Failure::refused(what.with("oid", oid))
                .mended_by(text::backup::RESTORE_TABLESPACE_IN_USE_MEND.with("oid", oid)));
        }
        mapped.push(Mapped { oid, was: tablespace.location.clone(), folder });
    }
    Ok(mapped)
}

/// Compares what has to be written with what is free, file system by file system; returns the bytes.
fn room(manifest: &Manifest, place: &Place) -> Result<u64> {
    let mut systems: BTreeMap<u64, FileSystem> = BTreeMap::new();
    let mut folders: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let mut total = 0;
    for file in &manifest.files {
        let path = place.path(&file.path);
        // Of a sparse file only what is allocated is there already.
        let missing = file.size.saturating_sub(allocated(&path));
        let folder = path.parent().unwrap_or(&path).to_path_buf();
        let device = match folders.get(&folder) {
            Some(device) => *device,
            None => device(&folder)?,
        };
        let system = systems.entry(device).or_insert_with(|| FileSystem::at(&folder));
        system.needed += missing;
        total += missing;
        folders.insert(folder, device);
    }
    for stranger in &place.removed {
        if let Some(system) = systems.get_mut(&device(stranger.parent().unwrap_or(stranger))?) {
            system.freed += allocated(stranger);
        }
    }
    systems.into_values().try_for_each(FileSystem::check)?;
    Ok(total)
}

/// What a restore asks of a file system.
struct FileSystem {
    at: PathBuf,
    needed: u64,
    freed: u64,
}

impl FileSystem {
    fn at(folder: &Path) -> FileSystem {
        FileSystem { at: existing(folder).to_path_buf(), needed: 0, freed: 0 }
    }

    fn check(self) -> Result<()> {
        let space = rustix::fs::statvfs(&self.at).map_err(|e| failed(&self.at, &e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize).saturating_add(self.freed);
        if self.needed <= free {
            return Ok(());
        }
        let what = text::backup::RESTORE_NO_ROOM
            .with("folder", self.at.display())
            .with("needed", HumanBytes(self.needed))
            .with("free", HumanBytes(free));
        Err(Failure::refused(what).mended_by(text::backup::RESTORE_NO_ROOM_MEND))
    }
}

/// The path, or the nearest one above it that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn device(folder: &Path) -> Result<u64> {
    let folder = existing(folder);
    fs::metadata(folder).map(|metadata| metadata.dev()).map_err(|e| failed(folder, &e))
}

/// Bytes on the disk of a file, or of a folder with all that is in it. What cannot be read counts nothing.
fn allocated(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let below = if metadata.is_dir() { fs::read_dir(path).ok() } else { None };
    let below = below.into_iter().flatten().flatten().map(|entry| allocated(&entry.path()));
    metadata.blocks() * 512 + below.sum::<u64>()
}
