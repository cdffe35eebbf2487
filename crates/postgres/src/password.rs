//! Passwords: made here, and handed to the server only as a SCRAM verifier.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use obyra_evidence::{Failure, text};
use secrecy::{ExposeSecret, SecretString};

use crate::Result;

/// 24 random bytes are 192 bits, and exactly 32 characters without padding.
const RANDOM_BYTES: usize = 24;

/// A new password of 32 characters that need no escaping in a URL, a passfile or a shell.
pub fn generate_password() -> Result<SecretString> {
    let mut bytes = [0_u8; RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| Failure::new(text::postgres::NO_RANDOMNESS).because(e))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

/// The SCRAM-SHA-256 verifier of a password, for `CREATE ROLE … PASSWORD '<verifier>'`.
///
/// The server stores exactly this. Sending the verifier keeps the password itself out of
/// the server's log, of `pg_stat_statements` and of `pg_stat_activity`.
pub fn scram_verifier(password: &SecretString) -> SecretString {
    postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_safe_and_never_twice_the_same() {
        let (one, two) = (generate_password().unwrap(), generate_password().unwrap());
        assert_eq!(one.expose_secret().len(), 32);
        assert!(one.expose_secret().chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        assert_ne!(one.expose_secret(), two.expose_secret());
    }

    #[test]
    fn a_verifier_does_not_hold_the_password() {
        let verifier = scram_verifier(&"contraseña".into());
        assert!(verifier.expose_secret().starts_with("SCRAM-SHA-256$4096:"));
        assert!(!verifier.expose_secret().contains("contrase"));
    }
}
