//! How the superuser reaches a cluster.

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use super::initdb::SUPERUSER;
use crate::{Conninfo, Result};

/// Over the private socket.
pub(super) fn socket(dir: &Path, port: u16, password: &SecretString) -> Result<Conninfo> {
    conninfo(&format!("host={} port={port}", quoted(&dir.to_string_lossy())), password)
}

/// Over loopback TLS, against the cluster's own authority. The address is given beside the name, so
/// that neither a resolver nor `::1`, where someone else may listen, comes between.
pub(super) fn loopback(ca: &Path, port: u16, password: &SecretString) -> Result<Conninfo> {
    let ca = quoted(&ca.to_string_lossy());
    let host = "host=localhost hostaddr=127.0.0.1";
    conninfo(&format!("{host} port={port} sslmode=verify-full sslrootcert={ca}"), password)
}

/// Over a private socket whose server trusts whoever can open it.
pub(super) fn trusted(dir: &Path, port: u16, role: &str, database: &str) -> Result<Conninfo> {
    let (dir, role, database) = (quoted(&dir.to_string_lossy()), quoted(role), quoted(database));
    Conninfo::parse(&format!("host={dir} port={port} user={role} dbname={database}"))
}

fn conninfo(place: &str, password: &SecretString) -> Result<Conninfo> {
    let password = quoted(password.expose_secret());
    Conninfo::parse(&format!("{place} user={SUPERUSER} password={password} dbname=postgres"))
}

/// A value of libpq's `key=value` form.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
