//! The URL form: `scheme://user:password@host:port,host:port/database?parameter=value`.

use obyra_evidence::{Failure, text};
use percent_encoding::percent_decode_str;

use super::parameters::{Pairs, Parameter};
use crate::Result;

const SCHEMES: [&str; 4] = ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"];

/// What follows `://`, or `None` where the text is no URL at all.
pub(super) fn split_scheme(text: &str) -> Result<Option<&str>> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
    if SCHEMES.contains(&scheme) {
        return Ok(Some(rest));
    }
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        || scheme.contains(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
    {
        // `host=x password=a://b` is a key=value text.
        return Ok(None);
    }
    Err(Failure::usage(text::postgres::SCHEME.with("scheme", scheme).with("known", SCHEMES.join(", "))))
}

/// The parameters of a URL, its scheme already taken away.
pub(super) fn pairs(address: &str) -> Result<Pairs> {
    read(address).map_err(|failure| if password_is_cut(address) { unescaped() } else { failure })
}

/// An `@` after the first `/` or `?` means, in a URL that cannot be read, that one of these
/// characters stood in the password. Then any message that names a part would leak a part.
fn password_is_cut(address: &str) -> bool {
    address.find(['/', '?']).is_some_and(|end| address[end..].contains('@'))
}

fn unescaped() -> Failure {
    Failure::usage(text::postgres::PASSWORD_UNESCAPED).mended_by(text::postgres::MEND_ESCAPE)
}

fn read(address: &str) -> Result<Pairs> {
    let end = address.find(['/', '?']).unwrap_or(address.len());
    let (authority, tail) = address.split_at(end);
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));

    let mut pairs = Pairs::default();
    let hosts = match authority.split_once('@') {
        Some((credentials, hosts)) => {
            read_credentials(&mut pairs, credentials)?;
            hosts
        }
        None => authority,
    };
    // A text cut in the wrong place would show a piece of the password as a host or a database.
    if hosts.contains('@') || path.contains('@') {
        return Err(unescaped());
    }
    read_hosts(&mut pairs, hosts)?;
    let database = decode(path.strip_prefix('/').unwrap_or(path))?;
    if !database.is_empty() {
        pairs.set(Parameter::Dbname, database);
    }
    read_query(&mut pairs, query)?;
    Ok(pairs)
}

fn read_credentials(pairs: &mut Pairs, credentials: &str) -> Result<()> {
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (credentials, None),
    };
    if !user.is_empty() {
        pairs.set(Parameter::User, decode(user)?);
    }
    if let Some(password) = password.filter(|p| !p.is_empty()) {
        pairs.set(Parameter::Password, decode(password)?);
    }
    Ok(())
}

fn read_hosts(pairs: &mut Pairs, hosts: &str) -> Result<()> {
    if hosts.is_empty() {
        return Ok(());
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = split_port(host)?;
        names.push(decode(name)?);
        ports.push(port);
    }
    pairs.set(Parameter::Host, names.join(","));
    if ports.iter().any(|p| !p.is_empty()) {
        pairs.set(Parameter::Port, ports.join(","));
    }
    Ok(())
}

/// `host:port`, `[::1]:port`, or without the port.
fn split_port(host: &str) -> Result<(&str, &str)> {
    let bad = || Failure::usage(text::postgres::BAD_HOST);
    if let Some(inner) = host.strip_prefix('[') {
        let (address, rest) = inner.split_once(']').ok_or_else(bad)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((address, port)),
            None if rest.is_empty() => Ok((address, "")),
            None => Err(bad()),
        };
    }
    match host.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(bad()),
        Some(parts) => Ok(parts),
        None => Ok((host, "")),
    }
}

fn read_query(pairs: &mut Pairs, query: &str) -> Result<()> {
    let mut hosts = Vec::new();
    let mut after_password = false;
    for part in query.split('&').filter(|p| !p.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(Failure::usage(text::postgres::PARAMETER_WITHOUT_VALUE));
        };
        let parameter = Parameter::named(&decode(name)?)
            // `password=a&b=c` would otherwise name the second half of the password.
            .map_err(|failure| if after_password { unescaped() } else { failure })?;
        after_password = parameter == Parameter::Password;
        let value = decode(value)?;
        match parameter {
            // SQLAlchemy repeats `host=name:port` for each of several hosts.
            Parameter::Host => hosts.push(value),
            _ => pairs.set(parameter, value),
        }
    }
    match hosts.as_slice() {
        [] => Ok(()),
        [one] if one.starts_with('/') || !one.contains(':') || one.matches(':').count() > 1 => {
            pairs.set(Parameter::Host, one.clone());
            Ok(())
        }
        several => read_hosts(pairs, &several.join(",")),
    }
}

fn decode(text: &str) -> Result<String> {
    let bad = || Failure::usage(text::postgres::BAD_ENCODING).mended_by(text::postgres::MEND_ESCAPE);
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        // The decoder passes a stray `%` through; libpq refuses it, and so do we.
        let digits = bytes.get(at + 1..at + 3).ok_or_else(bad)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad());
        }
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| bad())?;
    if decoded.contains('\0') {
        return Err(bad());
    }
    Ok(decoded.into_owned())
}
