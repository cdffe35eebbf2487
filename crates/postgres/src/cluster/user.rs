//! As whom PostgreSQL runs. It refuses root: when this program is root, servers run as `postgres`,
//! else as the user behind `sudo`, else as `nobody`.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;
use std::{env, fs, io};

use obyra_evidence::{Failure, text};
use rustix::process::{getegid, geteuid};

use super::files;
use crate::Result;

/// The user as whom PostgreSQL runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether it is another than the user of this process, which is root then.
    pub(super) switched: bool,
}

impl ServerUser {
    /// The user of this process, or who stands in for root.
    pub(super) fn choose() -> Result<ServerUser> {
        let uid = geteuid().as_raw();
        if uid != 0 {
            let gid = getegid().as_raw();
            return Ok(ServerUser { name: uid.to_string(), uid, gid, switched: false });
        }
        let passwd = files::read(Path::new("/etc/passwd"))?.unwrap_or_default();
        stand_in(&passwd, env::var("SUDO_UID").ok().as_deref()).ok_or_else(|| {
            Failure::new(text::cluster::NO_ORDINARY_USER).mended_by(text::cluster::NO_ORDINARY_USER_MEND)
        })
    }

    /// Whom this user's files must be given to, as user and group; `None` if they are its own anyway.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        self.switched.then_some((self.uid, self.gid))
    }

    /// Gives a folder to this user.
    pub(super) fn own(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.owner() else { return Ok(()) };
        lchown(path, Some(uid), Some(gid)).map_err(|e| files::failed(path, &e))
    }

    /// Whether this user can enter the folder, or the nearest one above it that exists.
    pub(super) fn can_reach(&self, path: &Path) -> bool {
        if !self.switched {
            return true;
        }
        let Ok(existing) = nearest_existing(path).canonicalize() else { return false };
        existing.ancestors().all(|dir| fs::metadata(dir).is_ok_and(|m| !m.is_dir() || self.may_enter(&m)))
    }

    /// By the mode alone: an access control list may allow more, and then we only are too careful.
    fn may_enter(&self, dir: &Metadata) -> bool {
        let bit = if dir.uid() == self.uid {
            0o100
        } else if dir.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        dir.mode() & bit != 0
    }
}

/// Who runs servers for root.
fn stand_in(passwd: &str, sudo_uid: Option<&str>) -> Option<ServerUser> {
    let entry = |wanted: &dyn Fn(&str, &str) -> bool| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            let (number, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            let fits = number != 0 && wanted(name, uid);
            fits.then(|| ServerUser { name: name.to_owned(), uid: number, gid, switched: true })
        })
    };
    entry(&|name, _| name == "postgres")
        .or_else(|| entry(&|_, uid| Some(uid) == sudo_uid))
        .or_else(|| entry(&|name, _| name == "nobody"))
}

/// The path, or the nearest one above it that exists.
pub(super) fn nearest_existing(path: &Path) -> &Path {
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    let exists = |p: &&Path| !matches!(fs::metadata(p), Err(e) if absent.contains(&e.kind()));
    path.ancestors().find(exists).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
        ana:x:1000:1001:Ana:/home/ana:/bin/sh\n";

    #[test]
    fn postgres_stands_in_for_root() {
        let passwd = format!("{PASSWD}postgres:x:101:104::/var/lib/postgresql:/bin/bash\n");
        let user = stand_in(&passwd, Some("1000")).unwrap();
        assert_eq!((user.name.as_str(), user.uid, user.gid), ("postgres", 101, 104));
    }

    #[test]
    fn else_the_user_behind_sudo_else_nobody_else_none() {
        assert_eq!(stand_in(PASSWD, Some("1000")).unwrap().name, "ana");
        assert_eq!(stand_in(PASSWD, None).unwrap().name, "nobody");
        assert_eq!(stand_in(PASSWD, Some("0")).unwrap().name, "nobody");
        assert_eq!(stand_in("root:x:0:0::/:/bin/sh", Some("0")), None);
    }

    #[test]
    fn a_closed_folder_above_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("closed/deeper/not-yet");
        files::make_dir(deep.parent().unwrap(), 0o755).unwrap();
        files::set_mode(dir.path(), 0o755).unwrap();
        let stranger = ServerUser { name: "x".into(), uid: 4_000_000, gid: 4_000_000, switched: true };
        assert!(stranger.can_reach(&deep));
        files::set_mode(&dir.path().join("closed"), 0o700).unwrap();
        assert!(!stranger.can_reach(&deep));
        let ourselves = ServerUser { switched: false, ..stranger };
        assert!(ourselves.can_reach(&deep));
    }
}
