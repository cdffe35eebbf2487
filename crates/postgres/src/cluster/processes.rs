//! Which processes belong to a cluster, asked of the kernel.
//!
//! Command lines are asked for, not working directories: in a container, root may not see the
//! latter of another user's process.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::user::ServerUser;

/// Whether this process is the postmaster of this data folder.
pub(super) fn is_postmaster(pid: u32, data: &Path, user: &ServerUser) -> bool {
    if !has_proc() {
        // Without /proc the process number is all there is; PostgreSQL checks its shared memory.
        return i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
    }
    command_line(pid, user).is_some_and(|line| works_on(&line, data))
}

/// Every program that was started on this data folder, initdb among them.
pub(super) fn on_folder(data: &Path, user: &ServerUser) -> Vec<u32> {
    of_user(user).filter(|(_, line)| works_on(line, data)).map(|(pid, _)| pid).collect()
}

/// The children of a postmaster, alive or killed, by the name of their cluster.
pub(super) fn children(cluster_name: &str, user: &ServerUser) -> Vec<u32> {
    let title = format!("postgres: {cluster_name}: ");
    of_user(user).filter(|(_, line)| line.starts_with(title.as_bytes())).map(|(pid, _)| pid).collect()
}

fn works_on(command_line: &[u8], data: &Path) -> bool {
    let arguments: Vec<&OsStr> = command_line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
    arguments.windows(2).any(|pair| pair[0] == "-D" && Path::new(pair[1]) == data)
}

/// The processes of the server's user with their command lines.
fn of_user(user: &ServerUser) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, command_line(pid, user)?)))
}

/// The command line of a process of the server's user. A dead process that nobody has waited for
/// has none.
fn command_line(pid: u32, user: &ServerUser) -> Option<Vec<u8>> {
    let process = Path::new("/proc").join(pid.to_string());
    if fs::metadata(&process).ok()?.uid() != user.uid {
        return None;
    }
    fs::read(process.join("cmdline")).ok().filter(|line| !line.is_empty())
}

fn has_proc() -> bool {
    Path::new("/proc/self/cmdline").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_not_our_postmaster() {
        let user = ServerUser::choose().unwrap();
        assert!(!is_postmaster(std::process::id(), Path::new("/nowhere"), &user));
        assert!(children("obyra-none", &user).is_empty());
    }
}
