//! A connection string, in every form in which one is found, and what it means.
//!
//! We read it ourselves: the driver knows neither `verify-full` nor `prefer-standby`, and
//! its errors quote what they do not understand, which may be a piece of a password.

mod keyvalue;
mod parameters;
mod render;
mod url;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::Result;
pub use parameters::{ChannelBinding, RootCertificate, SslMode, TargetSessionAttrs};
pub use render::{Reveal, Scheme};

/// Where a server listens: a host name, an address, or a folder with its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The host name or address; a path when it is the folder of a Unix socket.
    pub name: String,
    /// The address to connect to instead of asking DNS for the name (`hostaddr`).
    pub address: Option<IpAddr>,
    /// The port, also part of a socket's file name.
    pub port: u16,
}

impl Host {
    /// A host reached by its name.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Host { name: name.into(), address: None, port }
    }

    /// The folder of a Unix socket, if that is what the name is.
    pub fn socket_dir(&self) -> Option<&Path> {
        self.name.starts_with('/').then(|| Path::new(&self.name))
    }
}

/// What it takes to reach one database as one role.
///
/// `Display` is the URL without the password, and `Debug` hides it.
#[derive(Clone, Debug)]
pub struct Conninfo {
    hosts: Vec<Host>,
    user: String,
    password: Option<SecretString>,
    database: String,
    tls: TlsWish,
    target_session_attrs: TargetSessionAttrs,
    connect_timeout: Option<Duration>,
    application_name: Option<String>,
    options: Option<String>,
    handed_on: Vec<(&'static str, String)>,
}

/// How the connection is to be encrypted and the two sides are to prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsWish {
    pub mode: SslMode,
    pub root: Option<RootCertificate>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub channel_binding: ChannelBinding,
}

impl Conninfo {
    /// Reads `postgresql://`, `postgres://`, SQLAlchemy's `postgresql+psycopg://` and
    /// `postgresql+psycopg2://`, or libpq's `key=value` form.
    ///
    /// A failure never quotes the text: a password with an unescaped `@` or `/` would be in it.
    pub fn parse(text: &str) -> Result<Conninfo> {
        let text = text.trim();
        let pairs = match url::split_scheme(text)? {
            Some(address) => url::pairs(address)?,
            None => keyvalue::pairs(text)?,
        };
        parameters::interpret(pairs)
    }

    /// A connection made from parts, with libpq's defaults for the rest.
    pub fn new(hosts: Vec<Host>, user: impl Into<String>, database: impl Into<String>) -> Conninfo {
        Conninfo {
            hosts,
            user: user.into(),
            password: None,
            database: database.into(),
            tls: TlsWish::default(),
            target_session_attrs: TargetSessionAttrs::default(),
            connect_timeout: Some(parameters::CONNECT_TIMEOUT),
            application_name: None,
            options: None,
            handed_on: Vec::new(),
        }
    }

    /// The same server and database as another role.
    pub fn with_role(&self, role: &str, password: Option<SecretString>) -> Conninfo {
        Conninfo { user: role.to_owned(), password, ..self.clone() }
    }

    /// The same server and role, another database.
    pub fn with_database(&self, database: &str) -> Conninfo {
        Conninfo { database: database.to_owned(), ..self.clone() }
    }

    /// The same with another password.
    pub fn with_password(&self, password: Option<SecretString>) -> Conninfo {
        Conninfo { password, ..self.clone() }
    }

    /// The same with another sslmode and root certificate.
    pub fn with_tls(&self, mode: SslMode, root: Option<RootCertificate>) -> Conninfo {
        Conninfo { tls: TlsWish { mode, root, ..self.tls.clone() }, ..self.clone() }
    }

    /// The same with another demand on channel binding.
    pub fn with_channel_binding(&self, channel_binding: ChannelBinding) -> Conninfo {
        Conninfo { tls: TlsWish { channel_binding, ..self.tls.clone() }, ..self.clone() }
    }

    /// The same under another `application_name`.
    pub fn with_application_name(&self, name: &str) -> Conninfo {
        Conninfo { application_name: Some(name.to_owned()), ..self.clone() }
    }

    /// The same role and database at one host only, whatever kind of server that is.
    pub fn at(&self, host: &Host) -> Conninfo {
        Conninfo { hosts: vec![host.clone()], target_session_attrs: TargetSessionAttrs::Any, ..self.clone() }
    }

    /// The hosts, in the order in which they are tried.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The password, if the text had one.
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// The sslmode.
    pub fn ssl_mode(&self) -> SslMode {
        self.tls.mode
    }

    /// The certificate authority that the server's certificate must come from.
    pub fn root_certificate(&self) -> Option<&RootCertificate> {
        self.tls.root.as_ref()
    }

    /// What kind of server is wanted.
    pub fn target_session_attrs(&self) -> TargetSessionAttrs {
        self.target_session_attrs
    }

    /// How long one address may take to answer; `None` is for ever.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The name under which the session appears in `pg_stat_activity`, if the text had one.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// Command-line options for the server process (`-c search_path=…`).
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    pub(crate) fn tls(&self) -> &TlsWish {
        &self.tls
    }
}

#[cfg(test)]
mod tests;
