//! Where the passwords of an environment's roles are kept: files that only their owner can
//! read, or variables that the platform sets. Cloud stores are declared in the strategy but
//! not built yet, and say so.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Message, text};
use obyra_strategy::sections::secrets::Policy;
use obyra_strategy::{Environment, Store};
use secrecy::{ExposeSecret, SecretString};

/// The passwords of one environment's roles.
pub struct Credentials {
    environment: String,
    place: Place,
}

enum Place {
    Folder(PathBuf),
    Variables(Policy),
    NotBuilt { store: &'static str },
}

impl Credentials {
    /// The store that the strategy names for this environment.
    pub fn of(environment: &Environment, state_dir: &Path) -> Self {
        let place = match environment.secrets.store {
            Store::File => Place::Folder(state_dir.join("secrets").join(&environment.name)),
            Store::Env => Place::Variables(environment.secrets.clone()),
            other => Place::NotBuilt { store: other.name() },
        };
        Credentials { environment: environment.name.clone(), place }
    }

    /// Where a role's password is, in words that reveal nothing.
    pub fn place_of(&self, role: &str) -> String {
        match &self.place {
            Place::Folder(folder) => folder.join(role).display().to_string(),
            Place::Variables(policy) => format!("${}", policy.variable_for(&self.environment, role)),
            Place::NotBuilt { store } => (*store).to_owned(),
        }
    }

    /// The password of a role; `None` where the store holds none.
    pub fn password(&self, role: &str) -> Result<Option<SecretString>, Failure> {
        match &self.place {
            Place::Folder(folder) => read(&folder.join(role)),
            Place::Variables(policy) => {
                Ok(std::env::var(policy.variable_for(&self.environment, role)).ok().map(SecretString::from))
            }
            Place::NotBuilt { store } => Err(self.not_built(store)),
        }
    }

    /// The password of a role, or a failure that says where it should be.
    pub fn required(&self, role: &str) -> Result<SecretString, Failure> {
        self.password(role)?.ok_or_else(|| {
            Failure::new(text::cli::PASSWORD_MISSING.with("role", role).with("place", self.place_of(role)))
                .mended_by(text::cli::PASSWORD_MISSING_MEND.with("environment", &self.environment))
        })
    }

    /// Whether the program may write here.
    pub fn writable(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// Makes a new password and keeps it before the server learns of it, so that a crash
    /// between the two leaves a password that the next run can set again.
    pub fn generate(&self, role: &str) -> Result<SecretString, Failure> {
        let Place::Folder(folder) = &self.place else {
            return Err(Failure::new(self.cannot_write(role)));
        };
        let password = obyra_postgres::generate_password()?;
        write(folder, role, &password)?;
        Ok(password)
    }

    fn cannot_write(&self, role: &str) -> Message {
        text::cli::PASSWORD_MISSING.with("role", role).with("place", self.place_of(role))
    }

    fn not_built(&self, store: &str) -> Failure {
        Failure::new(text::cli::STORE_NOT_BUILT.with("store", store))
            .mended_by(text::cli::STORE_NOT_BUILT_MEND.with("environment", &self.environment))
    }
}

fn read(file: &Path) -> Result<Option<SecretString>, Failure> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unusable(file, &e)),
    };
    let mode = fs::metadata(file).map_err(|e| unusable(file, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::refused(text::cli::SECRET_EXPOSED.with("file", file.display()))
            .mended_by(text::cli::SECRET_EXPOSED_MEND.with("file", file.display())));
    }
    let password = text.trim_end_matches(['\r', '\n']);
    Ok(if password.is_empty() { None } else { Some(SecretString::from(password.to_owned())) })
}

/// Written beside and renamed, so that a half-written password never takes the place of a good one.
fn write(folder: &Path, role: &str, password: &SecretString) -> Result<(), Failure> {
    let fresh = folder.join(format!(".{role}.new"));
    let written = (|| {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(password.expose_secret().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, folder.join(role))
    })();
    written.map_err(|e| unusable(&folder.join(role), &e))
}

fn unusable(file: &Path, error: &io::Error) -> Failure {
    Failure::new(text::cli::FILE_UNUSABLE.with("file", file.display())).because(error)
}
