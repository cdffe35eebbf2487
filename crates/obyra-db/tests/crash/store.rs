//! The disk of the repository: one of its own where this may be mounted, so that it can be full or read-only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder, or a disk in memory that is mounted there.
pub struct Disk {
    folder: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Mounts one where root may do so; says when it is not.
    pub fn mount(folder: &Path) -> Disk {
        fs::create_dir_all(folder).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", LARGE, "obyra-crash"], folder);
        if !mounted {
            eprintln!("no disk may be mounted here: the store is never full nor read-only");
        }
        Disk { folder: folder.to_owned(), mounted }
    }

    /// Nothing can be written any more; what is being written goes on to its end.
    pub fn read_only(&self) {
        // A file that is open for writing keeps the disk writable: it is tried again, and given up.
        let _ = self.mounted && (0..200).any(|_| mount(&["-o", "remount,ro"], &self.folder));
    }

    /// There is no room for anything more.
    pub fn full(&self) {
        // Less than what is there already is refused: the largest of these that is refused is too small.
        let used = used_kilobytes(&self.folder);
        let tight = |more: u64| format!("remount,size={}k", used + more);
        let _ =
            self.mounted && [0, 64, 256, 1024].iter().any(|more| mount(&["-o", &tight(*more)], &self.folder));
    }

    /// Everything is well again.
    pub fn well(&self) {
        if self.mounted {
            assert!(mount(&["-o", &format!("remount,rw,{LARGE}")], &self.folder));
        }
    }
}

const LARGE: &str = "size=2g";

impl Drop for Disk {
    #[expect(clippy::disallowed_methods, reason = "there is no other way to unmount")]
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no other way to mount")]
fn mount(words: &[&str], folder: &Path) -> bool {
    let mut mount = Command::new("mount");
    mount.args(words).arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    mount.status().is_ok_and(|status| status.success())
}

fn used_kilobytes(folder: &Path) -> u64 {
    let disk = rustix::fs::statvfs(folder).unwrap();
    (disk.f_blocks - disk.f_bfree) * disk.f_frsize / 1024
}
