//! The backups of a cluster: their manifests written and read, their headers listed.
//!
//! The lines of a manifest go into packs of the backup as they come (the parts); the header goes last, into
//! the small commit object, by a conditional put. A backup exists from that moment on, whole.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use obyra_evidence::{Failure, text};

use super::Repository;
use super::layout::{BackupId, ClusterId, EXTENT_BYTES, PACK_BYTES, PackId};
use super::manifest::{Directory, FileEntry, Header, Line, PackEntry};
use super::pack::{Kind, Pack, PackWriter, twice};
use super::store::{Created, ObjectInfo};
use crate::Result;

/// zstd's level for manifests: they are small, and read often.
const LEVEL: i32 = 3;
/// Bytes of lines that are compressed together.
const FRAME_BYTES: usize = 1 << 20;
/// Objects that are read at the same time.
const READ_AHEAD: usize = 4;

/// A manifest being written.
pub struct ManifestWriter {
    repository: Repository,
    cluster: ClusterId,
    backup: BackupId,
    sequence: u32,
    lines: Vec<u8>,
    part: Option<PackWriter>,
    parts: Vec<PackEntry>,
    count: u64,
    named: Named,
}

/// What a commit put into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Bytes of the commit object and the parts.
    pub bytes: u64,
}

impl ManifestWriter {
    /// Begins the manifest of a backup that has put the packs up to, and without, this sequence.
    pub fn new(repository: &Repository, cluster: ClusterId, backup: &BackupId, sequence: u32) -> Self {
        ManifestWriter {
            repository: repository.clone(),
            cluster,
            backup: backup.clone(),
            sequence,
            lines: Vec::new(),
            part: None,
            parts: Vec::new(),
            count: 0,
            named: Named::default(),
        }
    }

    /// Adds a directory, a file or a pack. Packs are counted in the order in which they are added.
    pub async fn push(&mut self, line: &Line) -> Result<()> {
        debug_assert!(matches!(line, Line::Directory(_) | Line::File(_) | Line::Pack(_)));
        if let Line::Pack(pack) = line {
            self.named.insert(pack);
        }
        write_line(&mut self.lines, line, &self.backup)?;
        self.count += 1;
        if self.lines.len() >= FRAME_BYTES {
            self.flush()?;
            if self.part.as_ref().is_some_and(|part| part.len() >= PACK_BYTES) {
                self.put_part().await?;
            }
        }
        Ok(())
    }

    /// The packs that were named so far, those of the manifest itself among them.
    pub fn named(&self) -> &Named {
        &self.named
    }

    /// Puts the lines that were not put yet. No more are added then.
    pub async fn put_parts(&mut self) -> Result<()> {
        self.flush()?;
        self.put_part().await
    }

    /// Puts what is left, then the commit object. From here on the backup exists. Backups that run go by
    /// [`super::claims::Claim::commit`], which makes sure that all they name is there.
    pub async fn commit(&mut self, header: &Header) -> Result<Committed> {
        self.put_parts().await?;
        let name = self.cluster.manifest(&self.backup);
        let mut lines = Vec::new();
        write_line(&mut lines, &Line::Backup(Box::new(header.clone())), &self.backup)?;
        for part in &self.parts {
            write_line(&mut lines, &Line::Part(part.clone()), &self.backup)?;
        }
        write_line(&mut lines, &Line::End(self.count), &self.backup)?;
        let mut pack = PackWriter::new(&self.repository.keys, &name, LEVEL)?;
        for chunk in lines.chunks(FRAME_BYTES) {
            pack.push(Kind::Lines, chunk, Vec::new())?;
        }
        let sealed = pack.finish()?;
        let bytes = sealed.bytes.len() as u64 + self.parts.iter().map(|part| part.bytes).sum::<u64>();
        match self.repository.store.create(&name, sealed.bytes).await? {
            Created::New => Ok(Committed { bytes }),
            Created::Existed => {
                Err(Failure::refused(text::backup::BACKUP_EXISTS.with("backup", &self.backup)))
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        if self.part.is_none() {
            let id = PackId { backup: self.backup.clone(), sequence: self.sequence };
            self.part = Some(PackWriter::new(&self.repository.keys, &self.cluster.pack(&id), LEVEL)?);
        }
        if let Some(part) = &mut self.part {
            part.push(Kind::Lines, &self.lines, Vec::new())?;
        }
        self.lines.clear();
        Ok(())
    }

    async fn put_part(&mut self) -> Result<()> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let sealed = part.finish()?;
        let id = PackId { backup: self.backup.clone(), sequence: self.sequence };
        self.sequence += 1;
        let entry = PackEntry::of(id, &sealed);
        self.named.insert(&entry);
        self.parts.push(entry);
        self.repository.store.create_new(&sealed.name, sealed.bytes).await
    }
}

fn write_line(out: &mut Vec<u8>, line: &Line, backup: &BackupId) -> Result<()> {
    serde_json::to_writer(&mut *out, line)
        .map_err(|e| Failure::new(text::backup::SEAL.with("object", backup)).because(e))?;
    out.push(b'\n');
    Ok(())
}

/// Packs, by the backups that wrote them: their sequence and their size. A terabyte takes a megabyte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named(BTreeMap<BackupId, BTreeMap<u32, u64>>);

impl Named {
    /// Adds a pack.
    pub fn insert(&mut self, pack: &PackEntry) {
        let of = match self.0.get_mut(&pack.id.backup) {
            Some(of) => of,
            None => self.0.entry(pack.id.backup.clone()).or_default(),
        };
        of.insert(pack.id.sequence, pack.bytes);
    }

    /// Whether a pack is among them.
    pub fn contains(&self, pack: &PackId) -> bool {
        self.0.get(&pack.backup).is_some_and(|of| of.contains_key(&pack.sequence))
    }

    /// Those that are not in the store with their size.
    pub async fn missing(&self, repository: &Repository, cluster: ClusterId) -> Result<Vec<PackId>> {
        let mut missing = Vec::new();
        for (backup, wanted) in &self.0 {
            let objects = repository.store.list(&cluster.packs(backup)).await?;
            let there: BTreeMap<u32, u64> = objects
                .iter()
                .filter_map(|info| Some((cluster.pack_of(&info.name)?.sequence, info.bytes)))
                .collect();
            let absent = wanted.iter().filter(|(sequence, bytes)| there.get(sequence) != Some(bytes));
            missing
                .extend(absent.map(|(sequence, _)| PackId { backup: backup.clone(), sequence: *sequence }));
        }
        Ok(missing)
    }
}

/// A manifest, read. A cluster of 1 TB takes about 12 MB of memory: 131,000 extents, 26,000 packs.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What the backup is.
    pub header: Header,
    /// The packs with the lines of this manifest.
    pub parts: Vec<PackEntry>,
    /// The directories, parents first if they were written so.
    pub directories: Vec<Directory>,
    /// The files.
    pub files: Vec<FileEntry>,
    /// The packs that the files' maps are in or name; [`super::manifest::PieceAt::pack`] counts them.
    pub packs: Vec<PackEntry>,
}

impl Manifest {
    /// Reads the manifest of a backup that exists.
    pub async fn read(repository: &Repository, cluster: ClusterId, backup: &BackupId) -> Result<Manifest> {
        match Self::find(repository, cluster, backup).await? {
            Some(manifest) => Ok(manifest),
            None => Err(no_backup(backup)),
        }
    }

    /// The same; `None` if there is no such backup.
    pub async fn find(
        repository: &Repository,
        cluster: ClusterId,
        backup: &BackupId,
    ) -> Result<Option<Manifest>> {
        twice(|| Self::find_once(repository, cluster, backup)).await
    }

    async fn find_once(
        repository: &Repository,
        cluster: ClusterId,
        backup: &BackupId,
    ) -> Result<Option<Manifest>> {
        let Some(commit) = Commit::find(repository, cluster, backup).await? else { return Ok(None) };
        let Commit { header, parts, lines: promised } = commit;
        let mut manifest =
            Manifest { header, parts, directories: Vec::new(), files: Vec::new(), packs: Vec::new() };
        let name = cluster.manifest(backup);
        let mut count = 0;
        let names: Vec<_> =
            manifest.parts.iter().map(|part| (part.clone(), cluster.pack(&part.id))).collect();
        let mut read = stream::iter(names)
            .map(|(part, name)| async move {
                let bytes = repository.store.must_get(&name).await?;
                let pack = Pack::open(&repository.keys, &name, bytes)?;
                if pack.hash != part.hash { Err(super::pack::damaged(&name)) } else { Ok(pack) }
            })
            .buffered(READ_AHEAD);
        while let Some(pack) = read.try_next().await? {
            for frame in pack.frames(Kind::Lines) {
                count += manifest.take(&frame?, &name)?;
            }
        }
        if count != promised {
            return Err(malformed(&name, format!("{count} lines of {promised}")));
        }
        manifest.check(&name)?;
        Ok(Some(manifest))
    }

    /// The packs that it needs, its own among them.
    pub fn named(&self) -> Named {
        let mut named = Named::default();
        self.packs.iter().chain(&self.parts).for_each(|pack| named.insert(pack));
        named
    }

    /// Adds the lines of a frame; returns how many.
    fn take(&mut self, frame: &[u8], name: &str) -> Result<u64> {
        let mut count = 0;
        for line in lines(frame) {
            count += 1;
            match serde_json::from_slice(line).map_err(|e| malformed(name, e))? {
                Line::Directory(directory) => self.directories.push(directory),
                Line::File(file) => self.files.push(file),
                Line::Pack(pack) => self.packs.push(pack),
                Line::Backup(_) | Line::Part(_) | Line::End(_) => {
                    return Err(malformed(name, "a line that belongs into the commit object"));
                }
            }
        }
        Ok(count)
    }

    /// No path leads out of the data directory, and each file has the maps that its size asks for.
    fn check(&self, name: &str) -> Result<()> {
        let paths = self.directories.iter().map(|directory| &directory.path);
        for path in paths.chain(self.files.iter().map(|file| &file.path)) {
            let inside = |part| matches!(part, Component::Normal(_));
            if path.is_empty() || path.contains('\0') || !Path::new(path).components().all(inside) {
                return Err(malformed(name, format!("the path {path:?}")));
            }
        }
        for file in &self.files {
            let known = |pack: u32| (pack as usize) < self.packs.len();
            let extents = file.size.div_ceil(EXTENT_BYTES);
            if extents != file.extents.len() as u64 || !file.extents.iter().all(|at| known(at.pack)) {
                return Err(malformed(name, format!("the maps of {:?}", file.path)));
            }
        }
        Ok(())
    }
}

/// What the commit object says.
struct Commit {
    header: Header,
    parts: Vec<PackEntry>,
    lines: u64,
}

impl Commit {
    async fn find(repository: &Repository, cluster: ClusterId, backup: &BackupId) -> Result<Option<Commit>> {
        let name = cluster.manifest(backup);
        let Some(bytes) = repository.store.get(&name).await? else { return Ok(None) };
        let pack = Pack::open(&repository.keys, &name, bytes)?;
        let mut text = Vec::new();
        for frame in pack.frames(Kind::Lines) {
            text.append(&mut frame?);
        }
        let (mut header, mut parts, mut end) = (None, Vec::new(), None);
        for line in lines(&text) {
            match serde_json::from_slice(line).map_err(|e| malformed(&name, e))? {
                Line::Backup(read) if header.is_none() && parts.is_empty() => header = Some(*read),
                Line::Part(part) if end.is_none() => parts.push(part),
                Line::End(lines) if end.is_none() => end = Some(lines),
                _ => return Err(malformed(&name, "a line out of its place")),
            }
        }
        match (header, end) {
            (Some(header), Some(lines)) if header.id == *backup => Ok(Some(Commit { header, parts, lines })),
            _ => Err(malformed(&name, "its header or its end is missing")),
        }
    }
}

/// A backup, as a listing knows it.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub id: BackupId,
    /// When it was committed, by the store's clock.
    pub committed: Timestamp,
    /// Its header, or why that cannot be read: one damaged object hides no other backup.
    pub header: Result<Header>,
}

/// The backups of a cluster, oldest first. One small object is read for each.
pub async fn backups(repository: &Repository, cluster: ClusterId) -> Result<Vec<Listed>> {
    let listed = stream::iter(ids(repository, cluster).await?).map(|(id, info)| async move {
        let header = match Commit::find(repository, cluster, &id).await {
            Ok(Some(commit)) => Ok(commit.header),
            // Expired since it was listed.
            Ok(None) => return None,
            Err(failure) => Err(failure),
        };
        Some(Listed { id, committed: info.modified, header })
    });
    Ok(listed.buffered(2 * READ_AHEAD).filter_map(async |listed| listed).collect().await)
}

/// The names of the backups of a cluster, oldest first, without reading any.
pub async fn ids(repository: &Repository, cluster: ClusterId) -> Result<Vec<(BackupId, ObjectInfo)>> {
    let objects = repository.store.list(&cluster.backups()).await?;
    let id = |info: ObjectInfo| Some((info.name.rsplit('/').next()?.parse().ok()?, info));
    Ok(objects.into_iter().filter_map(id).collect())
}

/// The header of one backup.
pub async fn header(repository: &Repository, cluster: ClusterId, backup: &BackupId) -> Result<Header> {
    let commit = Commit::find(repository, cluster, backup).await?;
    commit.map(|commit| commit.header).ok_or_else(|| no_backup(backup))
}

/// The packs with the lines of a manifest, as its commit object names them.
pub(crate) async fn parts(
    repository: &Repository,
    cluster: ClusterId,
    backup: &BackupId,
) -> Result<Vec<PackEntry>> {
    let commit = Commit::find(repository, cluster, backup).await?;
    commit.map(|commit| commit.parts).ok_or_else(|| no_backup(backup))
}

fn lines(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    frame.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn no_backup(backup: &BackupId) -> Failure {
    Failure::new(text::backup::NO_BACKUP.with("backup", backup)).mended_by(text::backup::NO_BACKUP_MEND)
}

fn malformed(name: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(text::backup::OBJECT_UNREADABLE.with("object", name)).because(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::keys::{KeyId, Keyring};
    use crate::repository::manifest::{PieceAt, sample_header};
    use crate::repository::store::Store;

    const CLUSTER: ClusterId = ClusterId(7);

    fn repository() -> (tempfile::TempDir, Repository) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path()).unwrap();
        (folder, Repository { store, keys: Keyring::for_tests() })
    }

    fn id() -> BackupId {
        "20261124T030000Z-00ab".parse().unwrap()
    }

    fn pack(sequence: u32) -> PackEntry {
        // Not compressible, so that a manifest of many of them takes several parts.
        let salt = *blake3::hash(&sequence.to_le_bytes()).as_bytes();
        let hash = *blake3::hash(&salt).as_bytes();
        PackEntry { id: PackId { backup: id(), sequence }, key: KeyId([7; 16]), salt, bytes: 9, hash }
    }

    fn file(path: &str, size: u64, extents: usize) -> Line {
        let at = PieceAt { pack: 0, frame: 56, stored: 900, offset: 7 };
        Line::File(FileEntry { path: path.to_owned(), mode: 0o600, size, extents: vec![at; extents] })
    }

    async fn written(repository: &Repository, lines: &[Line], first: u32) -> Result<Committed> {
        let mut writer = ManifestWriter::new(repository, CLUSTER, &id(), first);
        for line in lines {
            writer.push(line).await?;
        }
        writer.commit(&sample_header(&id())).await
    }

    #[tokio::test]
    async fn a_manifest_of_many_packs_is_read_back_and_its_header_stays_small() {
        let (_folder, repository) = repository();
        let packs = 260_000;
        let mut lines: Vec<Line> = (0..packs).map(|sequence| Line::Pack(pack(sequence))).collect();
        lines.push(Line::Directory(Directory { path: "base".to_owned(), mode: 0o700 }));
        lines.push(file("base/1", EXTENT_BYTES + 1, 2));
        lines.push(file("base/2", 0, 0));
        let committed = written(&repository, &lines, packs).await.unwrap();
        assert!(committed.bytes > PACK_BYTES as u64);
        let commit = repository.store.head(&CLUSTER.manifest(&id())).await.unwrap().unwrap();
        assert!(commit.bytes < 4096, "{} bytes", commit.bytes);

        let manifest = Manifest::read(&repository, CLUSTER, &id()).await.unwrap();
        assert_eq!(manifest.packs.len(), packs as usize);
        assert_eq!(manifest.packs[77], pack(77));
        assert_eq!(manifest.files.len(), 2);
        assert!(manifest.parts.len() > 1);
        assert_eq!(manifest.parts[0].id.sequence, packs);
        let missing = manifest.named().missing(&repository, CLUSTER).await.unwrap();
        assert_eq!(missing.len(), packs as usize, "all but the parts");
        let listed = backups(&repository, CLUSTER).await.unwrap();
        assert_eq!(listed[0].header.as_ref().unwrap(), &sample_header(&id()));
        assert!(written(&repository, &[], 900_000).await.is_err(), "a backup is committed once");
    }

    #[tokio::test]
    async fn what_no_backup_can_be_is_not_read() {
        let directory = |path: &str| Line::Directory(Directory { path: path.to_owned(), mode: 0o700 });
        for lines in [
            vec![directory("../etc")],
            vec![directory("/etc")],
            vec![directory("")],
            vec![file("a/../../b", 0, 0)],
            vec![file("a", 1, 0), Line::Pack(pack(0))],
            vec![file("a", 1, 2), Line::Pack(pack(0))],
            vec![file("a", 1, 1)],
        ] {
            let (_folder, repository) = repository();
            written(&repository, &lines, 0).await.unwrap();
            let failure = Manifest::read(&repository, CLUSTER, &id()).await.unwrap_err();
            assert_eq!(failure.what.code(), text::backup::OBJECT_UNREADABLE, "{lines:?}");
        }
    }

    #[tokio::test]
    async fn one_damaged_manifest_hides_no_other_backup() {
        let (folder, repository) = repository();
        written(&repository, &[], 0).await.unwrap();
        let other: BackupId = "20261125T030000Z-00ab".parse().unwrap();
        ManifestWriter::new(&repository, CLUSTER, &other, 0).commit(&sample_header(&other)).await.unwrap();
        std::fs::write(folder.path().join(CLUSTER.manifest(&id())), b"rubbish").unwrap();
        let listed = backups(&repository, CLUSTER).await.unwrap();
        assert!(listed[0].header.is_err() && listed[1].header.is_ok());
        let absent: BackupId = "20261126T030000Z-00ab".parse().unwrap();
        assert!(Manifest::find(&repository, CLUSTER, &absent).await.unwrap().is_none());
        assert!(Manifest::read(&repository, CLUSTER, &absent).await.is_err());
    }

    #[tokio::test]
    async fn a_lost_part_is_noticed() {
        let (folder, repository) = repository();
        written(&repository, &[file("base/2", 0, 0)], 0).await.unwrap();
        std::fs::remove_file(folder.path().join(CLUSTER.pack(&PackId { backup: id(), sequence: 0 })))
            .unwrap();
        let failure = Manifest::read(&repository, CLUSTER, &id()).await.unwrap_err();
        assert_eq!(failure.what.code(), text::backup::OBJECT_MISSING);
    }
}
