//! Secrets in code. What is found is a place and a kind; the secret itself is never kept.

use ruff_python_ast::Expr;
use ruff_text_size::{Ranged as _, TextRange};

/// Functions that connect, and take a password.
pub(super) const CONNECTS: [&str; 10] = [
    "connect",
    "create_engine",
    "create_async_engine",
    "create_pool",
    "ConnectionPool",
    "AsyncConnectionPool",
    "SimpleConnectionPool",
    "ThreadedConnectionPool",
    "create",
    "Connection",
];
/// Schemes of what holds data behind a password.
const SCHEMES: [&str; 14] = [
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "mssql",
    "oracle",
    "cockroachdb",
    "redshift",
    "clickhouse",
    "mongodb",
    "redis",
    "rediss",
    "amqp",
    "amqps",
];
/// What nobody would take for a secret.
const PLACEHOLDERS: [&str; 18] = [
    "password",
    "passwd",
    "pass",
    "pwd",
    "secret",
    "changeme",
    "change_me",
    "change-me",
    "postgres",
    "root",
    "admin",
    "user",
    "test",
    "example",
    "guest",
    "dev",
    "mypassword",
    "yourpassword",
];
const LOCAL_HOSTS: [&str; 8] =
    ["localhost", "127.0.0.1", "::1", "0.0.0.0", "host.docker.internal", "", "db", "postgres"];

/// Whether a text is a connection string with a password: `Some(true)` if that is a default on this machine.
pub(super) fn connection_string(text: &str) -> Option<bool> {
    let (before, after) = text.split_once("://")?;
    let scheme = before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '+')).next()?;
    let scheme = scheme.split('+').next()?.to_ascii_lowercase();
    if !SCHEMES.contains(&scheme.as_str()) {
        return None;
    }
    let authority = &after[..after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len())];
    let (credentials, host) = authority.rsplit_once('@')?;
    let (user, password) = credentials.split_once(':')?;
    if password.is_empty() || is_run_time(password) {
        return None;
    }
    let weak = is_placeholder(password) || password == user;
    let local = is_local(host);
    // `postgresql://user:password@host/db` in a text is how one explains a connection string.
    if weak && !local { None } else { Some(weak) }
}

/// Whether an expression is a password in clear: its place, and whether it is a default.
pub(super) fn password(value: &Expr) -> Option<(TextRange, bool)> {
    let Expr::StringLiteral(literal) = value else { return None };
    let text = literal.value.to_str();
    let is_name_or_path = text.contains("://") || text.starts_with('/') || text.contains(char::is_whitespace);
    if text.is_empty() || is_run_time(text) || is_name_or_path {
        return None;
    }
    // `"DB_PASSWORD": "DB_PASSWORD"` names a variable.
    let names_a_variable = text.len() > 8 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    (!names_a_variable).then(|| (literal.range(), is_placeholder(text)))
}

/// `{password}`, `$PASSWORD`, `%(password)s`, `<password>`, `***`.
fn is_run_time(text: &str) -> bool {
    text.starts_with(['{', '$', '%', '<', '[', '*', '.', 'x', 'X'])
        && !text.starts_with(char::is_alphanumeric)
        || text.contains("${")
        || text.contains("%s")
        || text.contains('{') && text.contains('}')
        || text.bytes().all(|b| matches!(b, b'*' | b'x' | b'X' | b'.' | b'-' | b'_'))
}

fn is_placeholder(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    PLACEHOLDERS.contains(&text.as_str())
        || text.starts_with("your")
        || text.starts_with("my_")
        || text.len() < 3
}

/// A host on this machine or in a compose file: one name without a domain.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split([':', ',']).next().unwrap_or_default(),
    };
    LOCAL_HOSTS.contains(&name) || name.starts_with("127.") || (!name.contains('.') && name != "host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_secrets_from_defaults_and_examples() {
        for (text, expected) in [
            ("postgresql://app:s3cr3t-Kx@db.example.com/x", Some(false)),
            ("postgresql+psycopg://app:s3cr3t-Kx@localhost/x", Some(false)),
            ("url=postgres://a:p@ss:w@h.example.com:5432/x", Some(false)),
            ("postgresql://postgres:postgres@localhost:5432/x", Some(true)),
            ("postgresql://obyra:obyra@postgres/x", Some(true)),
            ("postgresql://user:password@host/db", None),
            ("postgresql://user:pass@db.example.com/db", None),
            ("postgresql://{user}:{password}@{host}/db", None),
            ("postgresql://u:%s@h/db", None),
            ("postgresql://u:***@h.example.com/db", None),
            ("postgresql://u@h/db", None),
            ("postgresql:///db", None),
            ("https://a:secretvalue@example.com/", None),
            ("see :// there", None),
        ] {
            assert_eq!(connection_string(text), expected, "{text}");
        }
    }
}
