//! What the password of each role that logs in needs: nothing, to be set, or a look by a person.
//!
//! A password that the server holds cannot be read back; whether it is the one in the store
//! is proven by logging in with it.

use std::collections::BTreeMap;

use obyra_access::Observed;
use obyra_access::policy::{PUBLIC, RoleKind};
use obyra_evidence::{Failure, Finding, Message, Severity, text};
use obyra_postgres::{Conninfo, Limits, Session};
use secrecy::SecretString;
use serde::Serialize;

use crate::environment::Opened;

/// What the passwords of an environment need.
#[derive(Default, Serialize)]
pub struct Passwords {
    /// Passwords that `apply` sets.
    pub set: Vec<SetPassword>,
    /// Roles whose stored password was proven by a login.
    pub proven: Vec<String>,
    /// What stays for a person.
    pub findings: Vec<Finding>,
}

/// A password that is set by the next `apply`.
#[derive(Serialize)]
pub struct SetPassword {
    /// The role.
    pub role: String,
    /// Why.
    pub reason: Message,
}

impl Passwords {
    /// Looks at every declared role that logs in.
    pub async fn observe(
        opened: &Opened<'_>,
        admin: &Conninfo,
        observed: &Observed,
    ) -> Result<Self, Failure> {
        let mut passwords = Passwords::default();
        for (role, policy) in &opened.environment.access.roles {
            if role == PUBLIC || !opened.environment.access.may_login(role) || admin.user() == role {
                continue;
            }
            // A managed administrator's password belongs to the provider.
            if policy.kind == RoleKind::Admin && !opened.embedded() {
                continue;
            }
            let stored = match opened.credentials.password(role) {
                Ok(stored) => stored,
                Err(failure) => {
                    passwords.unknown(role, failure);
                    continue;
                }
            };
            match (observed.role(role).is_some(), stored) {
                (true, Some(stored)) => passwords.prove(opened, admin, role, stored).await,
                (true, None) => passwords.not_stored(opened, role),
                (false, stored) => passwords.for_new_role(opened, role, stored.is_some()),
            }
        }
        Ok(passwords)
    }

    async fn prove(&mut self, opened: &Opened<'_>, admin: &Conninfo, role: &str, stored: SecretString) {
        match Session::connect(&admin.with_role(role, Some(stored)), Limits::default()).await {
            Ok(_) => self.proven.push(role.to_owned()),
            Err(failure) if failure.what.code() == text::postgres::WRONG_PASSWORD => {
                let reason = text::cli::PASSWORD_REJECTED.with("place", opened.credentials.place_of(role));
                self.set.push(SetPassword { role: role.to_owned(), reason });
            }
            Err(failure) => self.unknown(role, failure),
        }
    }

    fn not_stored(&mut self, opened: &Opened<'_>, role: &str) {
        let place = opened.credentials.place_of(role);
        if opened.credentials.writable() && opened.embedded() {
            let reason = text::cli::PASSWORD_NOT_STORED.with("place", place);
            self.set.push(SetPassword { role: role.to_owned(), reason });
        } else {
            let message = text::cli::PASSWORD_UNPROVEN.with("place", place);
            self.findings.push(Finding::new(Severity::Note, format!("role {role}"), message));
        }
    }

    fn for_new_role(&mut self, opened: &Opened<'_>, role: &str, stored: bool) {
        if stored || opened.credentials.writable() {
            let reason = text::cli::PASSWORD_NEW_ROLE.message();
            self.set.push(SetPassword { role: role.to_owned(), reason });
        } else {
            let message = text::cli::PASSWORD_NONE.with("place", opened.credentials.place_of(role));
            self.findings.push(Finding::new(Severity::Warning, format!("role {role}"), message));
        }
    }

    fn unknown(&mut self, role: &str, failure: Failure) {
        let message = text::cli::PASSWORD_UNKNOWN.with("why", &failure);
        let mut finding = Finding::new(Severity::Warning, format!("role {role}"), message);
        finding.mend = failure.mend;
        self.findings.push(finding);
    }

    /// The passwords to set, made where the store holds none yet.
    pub fn to_set(&self, opened: &Opened<'_>) -> Result<BTreeMap<String, SecretString>, Failure> {
        self.set
            .iter()
            .map(|step| {
                let password = match opened.credentials.password(&step.role)? {
                    Some(password) => password,
                    None => opened.credentials.generate(&step.role)?,
                };
                Ok((step.role.clone(), password))
            })
            .collect()
    }
}
