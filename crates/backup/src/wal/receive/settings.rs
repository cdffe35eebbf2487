//! What the server's settings mean for a receiver: pure readings of what `SHOW` says.

/// The bytes of a setting such as `16MB` or `1GB`; `None` for `-1`, which is "no limit", and for nonsense.
pub fn bytes(setting: &str) -> Option<u64> {
    let digits = setting.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = setting.split_at(digits);
    let shift = match unit {
        "B" | "" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Whether commits may wait for a receiver of this `application_name`: whether
/// `synchronous_standby_names` has it, or `*`. Names are compared as the server does, without regard to case
/// (<https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES>).
pub fn waits_for(synchronous_standby_names: &str, application_name: &str) -> bool {
    let list = match synchronous_standby_names.split_once('(') {
        Some((_, list)) => list.rsplit_once(')').map_or(list, |(list, _)| list),
        None => synchronous_standby_names,
    };
    names(list).iter().any(|name| name == "*" || name.eq_ignore_ascii_case(application_name))
}

/// The names of a list, with their quotes taken off.
fn names(list: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut quoted = false;
    let mut letters = list.chars().peekable();
    while let Some(letter) = letters.next() {
        let Some(name) = names.last_mut() else { break };
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(String::new()),
            white if white.is_whitespace() && !quoted => {}
            other => name.push(other),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_as_the_server_shows_them() {
        assert_eq!(bytes("16MB"), Some(16 << 20));
        assert_eq!(bytes("1GB"), Some(1 << 30));
        assert_eq!(bytes("512kB"), Some(512 << 10));
        assert_eq!(bytes("0"), Some(0));
        for none in ["-1", "", "MB", "1 MB", "1mb", "99999999999999TB"] {
            assert_eq!(bytes(none), None, "{none}");
        }
    }

    #[test]
    fn a_commit_waits_for_whom_it_names() {
        for yes in [
            "archive",
            "other, archive",
            "Archive",
            "*",
            "FIRST 1 (other, archive)",
            "ANY 2 (archive,other,third)",
            "2 (other, \"archive\")",
            "first 1(*)",
        ] {
            assert!(waits_for(yes, "archive"), "{yes}");
        }
        for no in ["", "other", "FIRST 1 (other)", "archive2", "\"arch ive\"", "ANY 1 (\"archive,\")"] {
            assert!(!waits_for(no, "archive"), "{no}");
        }
        assert!(waits_for("\"my \"\"archive\"\"\"", "my \"archive\""));
    }

    proptest! {
        #[test]
        fn any_text_is_read(setting in ".{0,40}", name in ".{0,10}") {
            let _ = (bytes(&setting), waits_for(&setting, &name));
        }
    }
}
