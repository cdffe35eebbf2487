//! What lies in the folder and is not in the backup: a restored cluster must not have it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{MARKER, Place, failed};
use crate::Result;
use crate::repository::catalogue::Manifest;
use crate::restore::files::skeleton;

/// The paths to remove: files, links, and whole folders, not what is in them besides. Links are not
/// followed, but for that of `pg_wal` and those of the tablespaces.
pub(super) fn find(manifest: &Manifest, place: &Place) -> Result<Vec<PathBuf>> {
    let mut wanted = Wanted::default();
    let directories = manifest.directories.iter().map(|directory| directory.path.as_str());
    for directory in directories.chain(skeleton::DIRECTORIES) {
        wanted.directories.insert(place.path(directory));
    }
    for file in &manifest.files {
        let path = place.path(&file.path);
        wanted.directories.extend(path.ancestors().skip(1).map(Path::to_path_buf));
        wanted.files.insert(path);
    }
    wanted.files.insert(place.data.join(MARKER));
    for mapped in &place.tablespaces {
        wanted.links.insert(place.data.join("pg_tblspc").join(mapped.oid.to_string()));
    }
    wanted.links.insert(place.data.join("pg_wal"));
    let mut strangers = Vec::new();
    for root in place.roots() {
        walk(&root, &wanted, &mut strangers)?;
    }
    strangers.sort();
    Ok(strangers)
}

#[derive(Default)]
struct Wanted {
    files: HashSet<PathBuf>,
    directories: HashSet<PathBuf>,
    links: HashSet<PathBuf>,
}

fn walk(folder: &Path, wanted: &Wanted, strangers: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(folder, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| failed(folder, &e))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| failed(&path, &e))?;
        let is_wanted = (kind.is_dir() && wanted.directories.contains(&path))
            || (kind.is_file() && wanted.files.contains(&path))
            || (kind.is_symlink() && wanted.links.contains(&path));
        if !is_wanted && entry.file_name() != "lost+found" {
            strangers.push(path);
        } else if kind.is_dir() && is_wanted {
            walk(&path, wanted, strangers)?;
        }
    }
    Ok(())
}
