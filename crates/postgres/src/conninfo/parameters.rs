//! What each parameter means, whichever form of text it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use obyra_evidence::{Failure, text};

use super::{Conninfo, Host, TlsWish};
use crate::Result;

/// Where libpq is built to look for a local server, on Debian and Red Hat, and upstream.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const PORT: u16 = 5432;

/// libpq would wait for ever; a person would not.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// They tune the socket of whoever gets the connection string from us; our own sockets keep to ours.
const HANDED_ON: [Parameter; 5] = [
    Parameter::Keepalives,
    Parameter::KeepalivesIdle,
    Parameter::KeepalivesInterval,
    Parameter::KeepalivesCount,
    Parameter::TcpUserTimeout,
];

/// An enumeration whose members have libpq's names.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, default $default:ident { $($(#[$member_doc:meta])* $member:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$member_doc])* $member),+ }

        impl $name {
            const ALL: &[(&'static str, Self)] = &[$(($text, Self::$member)),+];

            /// The name that libpq gives it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$member => $text),+ }
            }
        }

        impl Default for $name {
            fn default() -> Self { Self::$default }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.name()) }
        }
    };
}

named! {
    /// How much of TLS is wanted, with libpq's meaning.
    SslMode, default Prefer {
        /// Never encrypted.
        Disable = "disable",
        /// Plain first; encrypted if the server refuses that.
        Allow = "allow",
        /// Encrypted first; plain if the server refuses that.
        Prefer = "prefer",
        /// Encrypted. The server's certificate is checked only if a root certificate is given.
        Require = "require",
        /// Encrypted, and the certificate must come from the given authority.
        VerifyCa = "verify-ca",
        /// The same, and it must be made out to the host's name.
        VerifyFull = "verify-full",
    }
}

named! {
    /// Whether the SCRAM exchange must be bound to the TLS channel.
    ChannelBinding, default Prefer {
        /// Not used.
        Disable = "disable",
        /// Used where both sides can.
        Prefer = "prefer",
        /// A server that cannot is refused.
        Require = "require",
    }
}

named! {
    /// Which of several servers will do.
    TargetSessionAttrs, default Any {
        /// Any.
        Any = "any",
        /// One whose sessions write by default.
        ReadWrite = "read-write",
        /// One whose sessions do not.
        ReadOnly = "read-only",
        /// One that is not in recovery.
        Primary = "primary",
        /// One in recovery.
        Standby = "standby",
        /// One in recovery if there is one, else any.
        PreferStandby = "prefer-standby",
    }
}

named! {
    /// The parameters that are understood.
    Parameter, default Host {
        /// Where.
        Host = "host",
        /// Where, as an address.
        Hostaddr = "hostaddr",
        /// On which port.
        Port = "port",
        /// As whom.
        User = "user",
        /// With which password.
        Password = "password",
        /// Which database.
        Dbname = "dbname",
        /// How much TLS.
        Sslmode = "sslmode",
        /// Certificates to trust.
        Sslrootcert = "sslrootcert",
        /// Our own certificate.
        Sslcert = "sslcert",
        /// Its key.
        Sslkey = "sslkey",
        /// SCRAM channel binding.
        ChannelBinding = "channel_binding",
        /// Which kind of server.
        TargetSessionAttrs = "target_session_attrs",
        /// How long to wait.
        ConnectTimeout = "connect_timeout",
        /// Options of the server process.
        Options = "options",
        /// How the session is named.
        ApplicationName = "application_name",
        /// The same, if the other is absent.
        FallbackApplicationName = "fallback_application_name",
        /// Always UTF-8 here.
        ClientEncoding = "client_encoding",
        /// Never used here.
        Gssencmode = "gssencmode",
        /// Whether the kernel watches an idle connection.
        Keepalives = "keepalives",
        /// After how many seconds.
        KeepalivesIdle = "keepalives_idle",
        /// How many seconds apart.
        KeepalivesInterval = "keepalives_interval",
        /// How often.
        KeepalivesCount = "keepalives_count",
        /// How many milliseconds sent data may stay unconfirmed.
        TcpUserTimeout = "tcp_user_timeout",
    }
}

impl Parameter {
    /// The parameter of this name. An unknown name is quoted only if it cannot be much else.
    pub(super) fn named(name: &str) -> Result<Parameter> {
        if let Some((_, parameter)) = Self::ALL.iter().find(|(known, _)| *known == name) {
            return Ok(*parameter);
        }
        let known = Self::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let is_a_name = name.len() <= 40 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let shown = if is_a_name { name } else { "…" };
        Err(Failure::usage(text::postgres::UNKNOWN_PARAMETER.with("name", shown).with("known", known)))
    }
}

/// Parameters with their values, the later of two winning as in libpq.
#[derive(Default)]
pub(super) struct Pairs(BTreeMap<Parameter, String>);

impl Pairs {
    pub(super) fn set(&mut self, parameter: Parameter, value: String) {
        self.0.insert(parameter, value);
    }

    /// The value, where an empty one counts as absent, as in libpq.
    fn take(&mut self, parameter: Parameter) -> Option<String> {
        self.0.remove(&parameter).filter(|value| !value.is_empty())
    }
}

/// Which certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCertificate {
    /// Those in a PEM file.
    File(PathBuf),
    /// Those that the operating system trusts.
    System,
}

pub(super) fn interpret(mut pairs: Pairs) -> Result<Conninfo> {
    let user = pairs
        .take(Parameter::User)
        .ok_or_else(|| Failure::usage(text::postgres::NO_USER).mended_by(text::postgres::MEND_NO_USER))?;
    let database = pairs.take(Parameter::Dbname).unwrap_or_else(|| user.clone());
    accept_defaults(&mut pairs)?;
    Ok(Conninfo {
        hosts: hosts(&mut pairs)?,
        database,
        user,
        password: pairs.take(Parameter::Password).map(Into::into),
        tls: tls(&mut pairs)?,
        target_session_attrs: choice(&mut pairs, Parameter::TargetSessionAttrs, TargetSessionAttrs::ALL)?
            .unwrap_or_default(),
        connect_timeout: connect_timeout(&mut pairs)?,
        application_name: pairs
            .take(Parameter::ApplicationName)
            .or_else(|| pairs.take(Parameter::FallbackApplicationName)),
        options: pairs.take(Parameter::Options),
        handed_on: HANDED_ON
            .iter()
            .filter_map(|&parameter| Some((parameter.name(), pairs.take(parameter)?)))
            .collect(),
    })
}

/// Two parameters are common in the wild and have one value that means what we do anyway.
fn accept_defaults(pairs: &mut Pairs) -> Result<()> {
    let encoding = pairs.take(Parameter::ClientEncoding).map(|e| e.to_lowercase().replace('-', ""));
    if encoding.is_some_and(|e| !["utf8", "unicode", "auto"].contains(&e.as_str())) {
        return Err(unsupported(Parameter::ClientEncoding, "utf8"));
    }
    if pairs.take(Parameter::Gssencmode).is_some_and(|mode| mode == "require") {
        return Err(unsupported(Parameter::Gssencmode, "disable, prefer"));
    }
    Ok(())
}

fn unsupported(parameter: Parameter, allowed: &str) -> Failure {
    Failure::usage(text::postgres::BAD_VALUE.with("name", parameter).with("allowed", allowed))
}

fn choice<T: Copy>(pairs: &mut Pairs, parameter: Parameter, all: &[(&'static str, T)]) -> Result<Option<T>> {
    let Some(value) = pairs.take(parameter) else { return Ok(None) };
    match all.iter().find(|(name, _)| *name == value) {
        Some((_, choice)) => Ok(Some(*choice)),
        None => {
            let allowed = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            Err(unsupported(parameter, &allowed))
        }
    }
}

fn hosts(pairs: &mut Pairs) -> Result<Vec<Host>> {
    let names = pairs.take(Parameter::Host);
    let addresses = pairs.take(Parameter::Hostaddr);
    let ports = pairs.take(Parameter::Port);
    let ports: Vec<&str> = ports.as_deref().map(|p| p.split(',').collect()).unwrap_or_default();
    let addresses: Vec<&str> = addresses.as_deref().map(|a| a.split(',').collect()).unwrap_or_default();
    let names: Vec<&str> = match names.as_deref() {
        Some(names) => names.split(',').collect(),
        None if addresses.is_empty() => SOCKET_DIRS.to_vec(),
        None => vec![""; addresses.len()],
    };
    if (ports.len() > 1 && ports.len() != names.len())
        || (!addresses.is_empty() && addresses.len() != names.len())
    {
        return Err(Failure::usage(text::postgres::HOSTS_AND_PORTS.with("hosts", names.len())));
    }
    names
        .into_iter()
        .enumerate()
        .map(|(nth, name)| {
            let address = address(addresses.get(nth).copied().unwrap_or(""))?;
            Ok(Host {
                name: host_name(name, address)?,
                address,
                port: port(ports.get(nth).or(ports.first()).copied().unwrap_or(""), nth)?,
            })
        })
        .collect()
}

/// A host name, held to the characters of one: whatever else was in the text, it is not
/// shown in messages as if it were a host.
fn host_name(name: &str, address: Option<std::net::IpAddr>) -> Result<String> {
    let name = match (name, address) {
        ("", Some(address)) => return Ok(address.to_string()),
        ("", None) => "localhost",
        (name, _) => name,
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "@?#'\"\\".contains(c);
    if !name.starts_with('/') && (name.contains('/') || name.contains(odd)) {
        return Err(Failure::usage(text::postgres::BAD_HOST));
    }
    Ok(name.to_owned())
}

fn address(text: &str) -> Result<Option<std::net::IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| unsupported(Parameter::Hostaddr, "IPv4, IPv6"))
}

fn port(text: &str, nth: usize) -> Result<u16> {
    match text.trim() {
        "" => Ok(PORT),
        digits => digits
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| Failure::usage(text::postgres::BAD_PORT.with("nth", nth + 1))),
    }
}

fn tls(pairs: &mut Pairs) -> Result<TlsWish> {
    let root = pairs.take(Parameter::Sslrootcert).map(|value| match value.as_str() {
        "system" => RootCertificate::System,
        file => RootCertificate::File(file.into()),
    });
    let system = root == Some(RootCertificate::System);
    let mode = choice(pairs, Parameter::Sslmode, SslMode::ALL)?;
    // As in libpq: any certificate of any public authority proves nothing without the name.
    if system && mode.is_some_and(|mode| mode != SslMode::VerifyFull) {
        return Err(Failure::usage(text::postgres::SYSTEM_ROOTS_NEED_VERIFY_FULL));
    }
    Ok(TlsWish {
        mode: mode.unwrap_or(if system { SslMode::VerifyFull } else { SslMode::default() }),
        root,
        certificate: pairs.take(Parameter::Sslcert).map(PathBuf::from),
        key: pairs.take(Parameter::Sslkey).map(PathBuf::from),
        channel_binding: choice(pairs, Parameter::ChannelBinding, ChannelBinding::ALL)?.unwrap_or_default(),
    })
}

fn connect_timeout(pairs: &mut Pairs) -> Result<Option<Duration>> {
    let Some(value) = pairs.take(Parameter::ConnectTimeout) else { return Ok(Some(CONNECT_TIMEOUT)) };
    match value.trim().parse::<i64>() {
        Ok(seconds) if seconds <= 0 => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds.unsigned_abs()))),
        Err(_) => Err(unsupported(Parameter::ConnectTimeout, "seconds")),
    }
}
