//! Which files of a data directory belong into a backup: those that the server itself would send
//! (<https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-BASE-BACKUP>).

use std::collections::HashSet;

use crate::page::{Fork, RelationFile};

/// Directories whose content the server makes anew; they are kept, empty.
const EMPTIED: [&str; 7] =
    ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"];

/// Where the WAL is: it has an archive of its own. Its directories are kept, empty.
pub(super) const WAL: &str = "pg_wal";

/// Files of a running server, and what an earlier backup left.
const LEFT_OUT: [&str; 7] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
];

/// Whether nothing of what is in a directory belongs into a backup.
pub(super) fn is_emptied(directory: &str) -> bool {
    EMPTIED.contains(&directory) || directory == WAL || directory.starts_with("pg_wal/")
}

/// Whether a file or directory is left out by its name; `path` is relative to the data directory.
pub(super) fn is_left_out(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    LEFT_OUT.contains(&path)
        || name.starts_with("pgsql_tmp")
        || name.starts_with("pg_internal.init")
        || name == ".DS_Store"
        || RelationFile::of(path).is_some_and(|file| file.temporary)
}

/// The unlogged relations of a directory: those that have an init fork. Only this one is kept.
#[derive(Debug, Default)]
pub(super) struct Unlogged(HashSet<String>);

impl Unlogged {
    /// Of the files of one directory.
    pub(super) fn among<'a>(paths: impl Iterator<Item = &'a str>) -> Unlogged {
        let init = |path| RelationFile::of(path).filter(|file| file.fork == Fork::Init);
        Unlogged(paths.filter_map(init).map(|file| file.number.to_owned()).collect())
    }

    /// Whether a file of that directory is left out.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let file = RelationFile::of(path);
        file.is_some_and(|file| file.fork != Fork::Init && self.0.contains(file.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_would_not_send_is_left_out() {
        for out in [
            "postmaster.pid",
            "backup_label",
            "base/pgsql_tmp",
            "base/5/pg_internal.init",
            "base/5/pg_internal.init.4711",
            "global/pg_internal.init",
            "base/5/t3_16384",
            "base/5/t3_16384_fsm.1",
        ] {
            assert!(is_left_out(out), "{out}");
        }
        for kept in
            ["PG_VERSION", "postgresql.auto.conf", "base/5/16384", "base/5/backup_label", "pg_xact/0000"]
        {
            assert!(!is_left_out(kept), "{kept}");
        }
        assert!(is_emptied("pg_replslot") && is_emptied("pg_wal") && is_emptied("pg_wal/summaries"));
        assert!(!is_emptied("pg_logical/mappings") && !is_emptied("pg_wall"));
    }

    #[test]
    fn of_unlogged_relations_only_the_init_fork_is_kept() {
        let files =
            ["base/5/1", "base/5/1_init", "base/5/1_fsm", "base/5/1.1", "base/5/2", "base/5/PG_VERSION"];
        let unlogged = Unlogged::among(files.into_iter());
        let kept: Vec<_> = files.into_iter().filter(|path| !unlogged.leaves_out(path)).collect();
        assert_eq!(kept, ["base/5/1_init", "base/5/2", "base/5/PG_VERSION"]);
    }
}
