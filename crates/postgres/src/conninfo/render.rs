//! A connection string written out again: for people, for programs, for libpq's variables.

use std::fmt::{self, Write as _};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};

use super::{ChannelBinding, Conninfo, RootCertificate, TargetSessionAttrs, parameters};

/// Everything but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Parameters keep what makes a path or a list readable.
const ESCAPED_IN_PARAMETER: &AsciiSet = &ESCAPED.remove(b'/').remove(b',').remove(b':');

/// Whose URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `postgresql://`, for libpq, psql and most drivers.
    Postgresql,
    /// `postgresql+psycopg://`, SQLAlchemy's name for psycopg 3.
    PostgresqlPsycopg,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Postgresql => "postgresql",
            Scheme::PostgresqlPsycopg => "postgresql+psycopg",
        }
    }
}

/// Whether the password is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reveal {
    /// It is not.
    Hidden,
    /// It is: only for a child process, or for a person who asked with `--reveal`.
    Password,
}

impl Conninfo {
    /// The connection string. Revealed or not it comes as a secret, so that printing one is
    /// always a deliberate act; `Display` is the short way to the hidden one.
    pub fn url(&self, scheme: Scheme, reveal: Reveal) -> SecretString {
        let mut url = format!("{}://{}", scheme.name(), escape(&self.user));
        if let (Reveal::Password, Some(password)) = (reveal, &self.password) {
            let _ = write!(url, ":{}", escape(password.expose_secret()));
        }
        url.push('@');
        let separate_hosts = self.write_hosts(&mut url, scheme);
        let _ = write!(url, "/{}", escape(&self.database));
        let mut parameters = separate_hosts;
        parameters.extend(self.parameters().into_iter().map(|(_, name, value)| (name, value)));
        // libpq has no environment variables for these.
        parameters.extend(self.handed_on.iter().cloned());
        for (nth, (name, value)) in parameters.iter().enumerate() {
            let mark = if nth == 0 { '?' } else { '&' };
            let _ = write!(url, "{mark}{name}={}", utf8_percent_encode(value, ESCAPED_IN_PARAMETER));
        }
        url.into()
    }

    /// libpq's environment variables: what psql, pg_dump and psycopg need to connect.
    /// The password is among them as `PGPASSWORD`; an environment is not a command line.
    pub fn env(&self) -> Vec<(&'static str, SecretString)> {
        let mut variables = vec![
            ("PGHOST", self.each_host(|host| host.name.clone()).into()),
            ("PGPORT", self.each_host(|host| host.port.to_string()).into()),
            ("PGUSER", self.user.clone().into()),
            ("PGDATABASE", self.database.clone().into()),
        ];
        if let Some(password) = &self.password {
            variables.push(("PGPASSWORD", password.clone()));
        }
        variables.extend(self.parameters().into_iter().map(|(name, _, value)| (name, value.into())));
        variables
    }

    /// For a program that wants the database in an argument besides [`Self::env`]: a name with `=` in it would
    /// be read as a connection string, so it is one.
    pub fn dbname_argument(&self) -> String {
        let name = self.database.replace('\\', r"\\").replace('\'', r"\'");
        format!("--dbname=dbname='{name}'")
    }

    /// Where it leads, for messages: `db1.example:5432,db2.example:5432` or a socket's folder.
    pub fn host_summary(&self) -> String {
        self.each_host(ToString::to_string)
    }

    fn each_host(&self, of: impl Fn(&super::Host) -> String) -> String {
        self.hosts.iter().map(of).collect::<Vec<_>>().join(",")
    }

    /// Writes the hosts into the authority. SQLAlchemy reads only one there, and no path:
    /// then they are returned as parameters.
    fn write_hosts(&self, url: &mut String, scheme: Scheme) -> Vec<(&'static str, String)> {
        let one_by_name = self.hosts.len() == 1 && self.hosts[0].socket_dir().is_none();
        if scheme == Scheme::PostgresqlPsycopg && !one_by_name {
            // Its `host=name:port` form takes the first colon for the port's.
            if self.hosts.iter().any(|host| host.socket_dir().is_some() || host.name.contains(':')) {
                return vec![
                    ("host", self.each_host(|host| host.name.clone())),
                    ("port", self.each_host(|host| host.port.to_string())),
                ];
            }
            return self.hosts.iter().map(|host| ("host", host.to_string())).collect();
        }
        for (nth, host) in self.hosts.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            let _ = match host.socket_dir() {
                Some(_) => write!(url, "{comma}{}:{}", escape(&host.name), host.port),
                None => write!(url, "{comma}{host}"),
            };
        }
        Vec::new()
    }

    /// All but where, who and the password: environment variable, parameter, value. Defaults are left out.
    fn parameters(&self) -> Vec<(&'static str, &'static str, String)> {
        let tls = &self.tls;
        let path = |path: &std::path::PathBuf| path.display().to_string();
        let mut all = vec![("PGSSLMODE", "sslmode", tls.mode.to_string())];
        let mut add = |variable, name, value: Option<String>| all.extend(value.map(|v| (variable, name, v)));
        add(
            "PGSSLROOTCERT",
            "sslrootcert",
            tls.root.as_ref().map(|root| match root {
                RootCertificate::File(file) => path(file),
                RootCertificate::System => "system".to_owned(),
            }),
        );
        add("PGSSLCERT", "sslcert", tls.certificate.as_ref().map(path));
        add("PGSSLKEY", "sslkey", tls.key.as_ref().map(path));
        let binding = Some(tls.channel_binding).filter(|b| *b != ChannelBinding::default());
        add("PGCHANNELBINDING", "channel_binding", binding.map(|b| b.to_string()));
        let attrs = Some(self.target_session_attrs).filter(|a| *a != TargetSessionAttrs::default());
        add("PGTARGETSESSIONATTRS", "target_session_attrs", attrs.map(|a| a.to_string()));
        let timeout = match self.connect_timeout {
            Some(parameters::CONNECT_TIMEOUT) => None,
            Some(timeout) => Some(timeout.as_secs().to_string()),
            None => Some("0".to_owned()),
        };
        add("PGCONNECT_TIMEOUT", "connect_timeout", timeout);
        add("PGOPTIONS", "options", self.options.clone());
        add("PGAPPNAME", "application_name", self.application_name.clone());
        if self.hosts.iter().any(|host| host.address.is_some()) {
            let addresses = self.each_host(|host| host.address.map(|a| a.to_string()).unwrap_or_default());
            add("PGHOSTADDR", "hostaddr", Some(addresses));
        }
        all
    }
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The URL without the password.
impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url(Scheme::Postgresql, Reveal::Hidden).expose_secret())
    }
}

/// `host:port`, an IPv6 address in brackets, a socket as its file.
impl fmt::Display for super::Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_dir() {
            Some(_) => write!(f, "{}/.s.PGSQL.{}", self.name, self.port),
            None if self.name.contains(':') => write!(f, "[{}]:{}", self.name, self.port),
            None => write!(f, "{}:{}", self.name, self.port),
        }
    }
}
