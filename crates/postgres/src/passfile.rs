//! The password that libpq would find for a connection string without one: `PGPASSWORD`, then
//! the password file (<https://www.postgresql.org/docs/16/libpq-pgpass.html>).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use obyra_evidence::{Failure, text};
use secrecy::SecretString;

use crate::{Conninfo, Result};

impl Conninfo {
    /// The same with the password that the environment offers, unless there is one already.
    pub fn with_offered_password(&self) -> Result<Conninfo> {
        if self.password().is_some() {
            return Ok(self.clone());
        }
        let password = match std::env::var("PGPASSWORD") {
            Ok(password) if !password.is_empty() => Some(SecretString::from(password)),
            _ => self.in_passfile()?,
        };
        Ok(self.with_password(password))
    }

    fn in_passfile(&self) -> Result<Option<SecretString>> {
        let named = std::env::var_os("PGPASSFILE").map(PathBuf::from);
        let usual = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
        let Some(file) = named.or(usual) else { return Ok(None) };
        let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
        // libpq ignores such a file with a warning; a password that others can read is no secret.
        let exposed = fs::metadata(&file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
        if exposed {
            return Err(Failure::refused(text::postgres::PASSFILE_EXPOSED.with("file", file.display()))
                .mended_by(text::postgres::PASSFILE_EXPOSED_MEND.with("file", file.display())));
        }
        Ok(self.hosts().iter().find_map(|host| {
            // For a socket, the file speaks of localhost.
            let name = if host.socket_dir().is_some() { "localhost" } else { host.name.as_str() };
            let port = host.port.to_string();
            find(&text, [name, &port, self.database(), self.user()])
        }))
    }
}

/// The password of the first line that matches host, port, database and role.
fn find(text: &str, wanted: [&str; 4]) -> Option<SecretString> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [pattern @ .., password] = fields.as_slice() else { return None };
        let matches = pattern.len() == 4 && pattern.iter().zip(wanted).all(|(p, w)| p == "*" || p == w);
        matches.then(|| SecretString::from(password.clone()))
    })
}

/// Fields are parted by colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut().into_iter().for_each(|field| field.extend(characters.next())),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn the_first_line_that_matches_wins() {
        let text = "# ours\nother:*:*:*:no\ndb.example:5432:obyra:*:p\\:a\\\\ss\n*:*:*:*:last\n";
        let found = |wanted| find(text, wanted).map(|p| p.expose_secret().to_owned());
        assert_eq!(found(["db.example", "5432", "obyra", "admin"]).as_deref(), Some("p:a\\ss"));
        assert_eq!(found(["db.example", "5433", "obyra", "admin"]).as_deref(), Some("last"));
        assert!(find("broken line\na:b:c\n", ["a", "b", "c", "d"]).is_none());
    }
}
