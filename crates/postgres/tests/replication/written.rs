//! A base backup written out as files, the way a restore would.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use obyra_postgres::cluster::TemporaryCluster;
use obyra_postgres::replication::{
    BackupEvent, BaseBackupOptions, Tablespace, TarEntries, TarEvent, TarKind, Walsender,
};
use obyra_postgres::wal::{Lsn, TimelineId};

/// What a backup has become.
pub struct Written {
    pub dir: tempfile::TempDir,
    pub start: (Lsn, TimelineId),
    pub end: (Lsn, TimelineId),
    pub tablespaces: Vec<Tablespace>,
    pub corrupt: Option<String>,
    pub warnings: Vec<String>,
    owner: (u32, u32),
}

impl Written {
    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where a tablespace has come to lie.
    pub fn tablespace(&self, oid: u32) -> PathBuf {
        self.dir.path().join(oid.to_string())
    }

    /// Puts a file of the data directory in place.
    pub fn put(&self, name: &str, contents: &[u8]) {
        let path = self.data().join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        chown(&path, Some(self.owner.0), Some(self.owner.1)).unwrap();
    }

    /// Leads to where the tablespaces lie now.
    pub fn link(&self) {
        for oid in self.tablespaces.iter().filter_map(|tablespace| tablespace.oid) {
            symlink(self.tablespace(oid), self.data().join("pg_tblspc").join(oid.to_string())).unwrap();
        }
    }

    /// Leads the server there too, which makes the links anew from this map.
    pub fn remap(&self) {
        let locations = self.tablespaces.iter().filter_map(|tablespace| tablespace.oid);
        let lines = locations.map(|oid| format!("{oid} {}\n", self.tablespace(oid).display()));
        self.put("tablespace_map", lines.collect::<String>().as_bytes());
    }
}

/// Takes a backup and writes it out; everything belongs to the server's user.
pub async fn write(
    cluster: &TemporaryCluster,
    walsender: &mut Walsender,
    options: &BaseBackupOptions,
) -> Written {
    let owner = fs::metadata(cluster.dir().join("data")).unwrap();
    let mut written = Written {
        dir: tempfile::Builder::new().prefix("restored-").tempdir_in("/tmp").unwrap(),
        start: (Lsn(0), TimelineId(0)),
        end: (Lsn(0), TimelineId(0)),
        tablespaces: Vec::new(),
        corrupt: None,
        warnings: Vec::new(),
        owner: (owner.uid(), owner.gid()),
    };
    fs::set_permissions(written.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut writer = Writer::default();
    let mut backup = walsender.base_backup(options).await.unwrap();
    while let Some(event) = backup.next().await.unwrap() {
        match event {
            BackupEvent::Started { lsn, timeline } => written.start = (lsn, timeline),
            BackupEvent::Tablespaces(tablespaces) => written.tablespaces = tablespaces,
            BackupEvent::ArchiveBegin { tablespace, .. } => {
                let dir = tablespace.map_or_else(|| written.data(), |oid| written.tablespace(oid));
                writer.begin(&dir, written.owner);
            }
            BackupEvent::ArchiveData(bytes) => writer.write(bytes),
            BackupEvent::ManifestBegin => writer.end(),
            BackupEvent::ManifestData(bytes) => writer.manifest.extend_from_slice(&bytes),
            BackupEvent::Progress(_) => {}
            BackupEvent::Finished { lsn, timeline, corrupt, warnings } => {
                written.end = (lsn, timeline);
                (written.corrupt, written.warnings) = (corrupt, warnings);
            }
        }
    }
    writer.end();
    if options.manifest {
        written.put("backup_manifest", &writer.manifest);
    }
    written
}

#[derive(Default)]
struct Writer {
    archive: TarEntries,
    dir: PathBuf,
    owner: (u32, u32),
    file: Option<(fs::File, u64)>,
    manifest: Vec<u8>,
}

impl Writer {
    fn begin(&mut self, dir: &Path, owner: (u32, u32)) {
        self.end();
        (self.dir, self.owner) = (dir.into(), owner);
        self.directory(dir, 0o700);
    }

    fn directory(&self, path: &Path, mode: u32) {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        chown(path, Some(self.owner.0), Some(self.owner.1)).unwrap();
    }

    fn write(&mut self, bytes: bytes::Bytes) {
        self.archive.feed(bytes);
        while let Some(event) = self.archive.next().unwrap() {
            match event {
                TarEvent::Entry(entry) => {
                    self.close();
                    let path = self.dir.join(&entry.path);
                    match entry.kind {
                        TarKind::Directory => self.directory(&path, entry.mode),
                        TarKind::Symlink(_) => panic!("a link beside the map of tablespaces"),
                        TarKind::File => {
                            let file = fs::File::create(&path).unwrap();
                            fs::set_permissions(&path, PermissionsExt::from_mode(entry.mode)).unwrap();
                            chown(&path, Some(self.owner.0), Some(self.owner.1)).unwrap();
                            self.file = Some((file, entry.size));
                        }
                    }
                }
                TarEvent::Data(data) => {
                    let (file, left) = self.file.as_mut().unwrap();
                    file.write_all(&data).unwrap();
                    *left -= data.len() as u64;
                }
            }
        }
    }

    fn close(&mut self) {
        if let Some((_, left)) = self.file.take() {
            assert_eq!(left, 0, "a file came to its end");
        }
    }

    fn end(&mut self) {
        self.close();
        std::mem::take(&mut self.archive).finish().unwrap();
    }
}
