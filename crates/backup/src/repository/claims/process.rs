//! Whether a process still runs, for whoever is on the same machine: a backup that was killed need not be
//! waited for until its claim has gone silent.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// A process, told from all others that ever had its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    number: u32,
    /// The machine since it was started, and on it the space in which the number counts: containers have
    /// their own (`boot_id`, and the inode of the process's name space).
    space: String,
    /// When it began, in the kernel's ticks.
    began: u64,
}

impl Process {
    /// This one; `None` where the system does not tell.
    pub fn this() -> Option<Process> {
        let number = std::process::id();
        Some(Process { number, space: space()?, began: began(number)? })
    }

    /// Whether it certainly runs no more. Of another machine nobody here knows.
    pub fn is_gone(&self) -> bool {
        if space().as_ref() != Some(&self.space) {
            return false;
        }
        let pid = i32::try_from(self.number).ok().and_then(Pid::from_raw);
        // Processes of others may be hidden in /proc; a signal that is none is answered all the same.
        match pid.map(test_kill_process) {
            Some(Err(Errno::SRCH)) => true,
            _ => began(self.number).is_some_and(|began| began != self.began),
        }
    }
}

fn space() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let numbers = fs::metadata("/proc/self/ns/pid").ok()?.ino();
    Some(format!("{} {numbers}", boot.trim()))
}

/// The 22nd field of `/proc/<pid>/stat`; the second, a name in parentheses, may hold anything.
fn began(number: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_this_machine_is_known_to_be_gone() {
        let this = Process::this().unwrap();
        assert!(!this.is_gone());
        let before = Process { began: this.began - 1, ..this.clone() };
        assert!(before.is_gone(), "somebody else has its number now");
        assert!(!Process { space: "elsewhere".to_owned(), ..before }.is_gone());
        // Numbers end before this one.
        assert!(Process { number: 4_194_305, ..this }.is_gone());
    }
}
