//! Data directories that are not ours: whether a server runs there, and to whom its files should belong.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::files;
use super::user::ServerUser;
use crate::Result;

/// The process of the server that runs in a data directory, or of a single-user session there.
///
/// As careful as PostgreSQL itself: a process that `postmaster.pid` names and that lives counts, unless it is
/// known to be another program.
pub fn server_in(data: &Path) -> Result<Option<u32>> {
    let Some(text) = files::read(&data.join("postmaster.pid"))? else { return Ok(None) };
    // A single-user session writes its number with a minus sign.
    let number = text.lines().next().map(|line| line.trim().trim_start_matches('-').parse::<i32>());
    let Some(Ok(number)) = number else { return Ok(None) };
    let Some(pid) = Pid::from_raw(number) else { return Ok(None) };
    let lives = matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM));
    let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
    let is_another = !name.is_empty() && !name.trim().starts_with("post");
    Ok((lives && !is_another).then_some(number.unsigned_abs()))
}

/// To whom the files of a cluster in this folder must be given, as user and group; `None` if whatever this
/// process makes belongs to the right user anyway. Root gives them to the folder's owner, or, where the
/// folder is root's own or absent, to the user as whom PostgreSQL runs.
pub fn owner_of_files(data: &Path) -> Result<Option<(u32, u32)>> {
    let user = ServerUser::choose()?;
    if !user.switched {
        return Ok(None);
    }
    let there = fs::metadata(data).ok().filter(|metadata| metadata.uid() != 0);
    Ok(there.map(|metadata| (metadata.uid(), metadata.gid())).or_else(|| user.owner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_server_does_not_occupy_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(server_in(dir.path()).unwrap(), None);
        let pid_file = dir.path().join("postmaster.pid");
        for stale in ["", "not a number\n", "0\n", &format!("{}\n", std::process::id()), "2147483646\n"] {
            fs::write(&pid_file, stale).unwrap();
            assert_eq!(server_in(dir.path()).unwrap(), None, "{stale:?}");
        }
    }
}
