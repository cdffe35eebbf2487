//! The start of a replication connection: who we are, the password, and what the server says of itself
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>).

use std::collections::HashMap;
use std::io;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use secrecy::{ExposeSecret as _, SecretString};

use super::refusal;
use super::wire::{Incoming, Wire};
use crate::ServerVersion;
use crate::connect::APPLICATION_NAME;
use crate::conninfo::{ChannelBinding, Conninfo};
use crate::sql::ServerError;

/// Why the server did not let us in.
#[derive(Debug)]
pub(super) enum Obstacle {
    Io(io::Error),
    HungUp,
    Server(ServerError),
    PasswordMissing,
    NoChannelBinding(&'static str),
    /// What the two sides cannot agree on, in our words.
    Handshake(String),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Obstacle::HungUp,
            _ => Obstacle::Io(error),
        }
    }
}

/// What the server says of itself once we are in.
#[derive(Default)]
pub(super) struct Greeting {
    pub process_id: i32,
    pub secret_key: i32,
    parameters: HashMap<String, String>,
}

impl Greeting {
    pub(super) fn version(&self) -> Option<ServerVersion> {
        version(self.parameters.get("server_version")?)
    }

    pub(super) fn is_on(&self, parameter: &str) -> bool {
        self.parameters.get(parameter).is_some_and(|value| value == "on")
    }
}

/// `16.15 (Debian 16.15-1.pgdg12+1)` is 160015, `19beta1` is 190000.
fn version(said: &str) -> Option<ServerVersion> {
    let number = |text: &str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        text[..digits].parse::<u32>().ok().filter(|number| *number < 10_000)
    };
    let major = number(said)?;
    let minor = said.split_once('.').and_then(|(_, minor)| number(minor)).unwrap_or(0);
    Some(ServerVersion(major * 10_000 + minor))
}

/// One login.
pub(super) struct Login<'a> {
    pub target: &'a Conninfo,
    pub wire: &'a mut Wire,
    /// What SCRAM can be bound to.
    pub end_point: Option<Vec<u8>>,
}

impl Login<'_> {
    /// Goes through it, until the server is ready for a command.
    pub(super) async fn run(mut self) -> Result<Greeting, Obstacle> {
        let target = self.target;
        let name = target.application_name().unwrap_or(APPLICATION_NAME);
        let mut parameters = vec![
            ("client_encoding", "UTF8"),
            ("user", target.user()),
            // The server does not look at it, a pooler in between may.
            ("database", target.database()),
            ("replication", "true"),
            ("application_name", name),
        ];
        parameters.extend(target.options().map(|options| ("options", options)));
        frontend::startup_message(parameters, self.wire.outbox())?;
        self.authenticate().await?;
        self.greeting().await
    }

    async fn authenticate(&mut self) -> Result<(), Obstacle> {
        match self.answer().await? {
            Message::AuthenticationOk => return self.may_go_unbound(),
            Message::AuthenticationCleartextPassword => {
                self.may_go_unbound()?;
                let password = given(self.target)?;
                frontend::password_message(password.expose_secret().as_bytes(), self.wire.outbox())?;
            }
            Message::AuthenticationMd5Password(body) => {
                self.may_go_unbound()?;
                let password = given(self.target)?.expose_secret().as_bytes();
                let hash = md5_hash(self.target.user().as_bytes(), password, body.salt());
                frontend::password_message(hash.as_bytes(), self.wire.outbox())?;
            }
            Message::AuthenticationSasl(body) => self.scram(&body).await?,
            _ => return Err(Obstacle::Handshake("unsupported authentication method".into())),
        }
        match self.answer().await? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(unexpected()),
        }
    }

    async fn scram(&mut self, offered: &AuthenticationSaslBody) -> Result<(), Obstacle> {
        let password = given(self.target)?;
        let offered: Vec<&str> = offered.mechanisms().collect()?;
        let end_point = match self.target.tls().channel_binding {
            ChannelBinding::Disable => None,
            ChannelBinding::Prefer | ChannelBinding::Require => self.end_point.take(),
        };
        let (mechanism, binding) = match end_point {
            Some(hash) if offered.contains(&sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            // Says that we could have: a server that could too then knows that somebody came between.
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if !offered.contains(&mechanism) {
            return Err(Obstacle::Handshake("unsupported SASL mechanism".into()));
        }
        if mechanism != sasl::SCRAM_SHA_256_PLUS {
            self.may_go_unbound()?;
        }
        let mut scram = ScramSha256::new(password.expose_secret().as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), self.wire.outbox())?;
        let Message::AuthenticationSaslContinue(body) = self.answer().await? else {
            return Err(unexpected());
        };
        scram.update(body.data()).map_err(not_proven)?;
        frontend::sasl_response(scram.message(), self.wire.outbox())?;
        let Message::AuthenticationSaslFinal(body) = self.answer().await? else { return Err(unexpected()) };
        scram.finish(body.data()).map_err(not_proven)
    }

    async fn greeting(&mut self) -> Result<Greeting, Obstacle> {
        let mut greeting = Greeting::default();
        loop {
            match self.answer().await? {
                Message::BackendKeyData(body) => {
                    greeting.process_id = body.process_id();
                    greeting.secret_key = body.secret_key();
                }
                Message::ParameterStatus(body) => {
                    greeting.parameters.insert(body.name()?.to_owned(), body.value()?.to_owned());
                }
                Message::ReadyForQuery(_) => return Ok(greeting),
                _ => return Err(unexpected()),
            }
        }
    }

    /// Sends what is in the outbox and waits for the answer.
    async fn answer(&mut self) -> Result<Message, Obstacle> {
        self.wire.flush().await?;
        loop {
            match self.wire.receive().await? {
                Some(Incoming::Message(Message::ErrorResponse(body))) => {
                    return Err(Obstacle::Server(refusal::said(body.fields())?));
                }
                Some(Incoming::Message(Message::NoticeResponse(_))) => {}
                Some(Incoming::Message(message)) => return Ok(message),
                Some(Incoming::CopyBoth) => return Err(unexpected()),
                None => return Err(Obstacle::HungUp),
            }
        }
    }

    fn may_go_unbound(&self) -> Result<(), Obstacle> {
        match self.target.tls().channel_binding {
            ChannelBinding::Disable | ChannelBinding::Prefer => Ok(()),
            ChannelBinding::Require => Err(Obstacle::NoChannelBinding("server did not use channel binding")),
        }
    }
}

fn given(target: &Conninfo) -> Result<&SecretString, Obstacle> {
    target.password().ok_or(Obstacle::PasswordMissing)
}

fn unexpected() -> Obstacle {
    Obstacle::Handshake("unexpected message from the server".into())
}

/// The server does not know the password either, or what it sent is no proof.
fn not_proven(error: io::Error) -> Obstacle {
    Obstacle::Handshake(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_kinds() {
        for (said, number) in [
            ("16.15", 160_015),
            ("16.15 (Debian 16.15-1.pgdg12+1)", 160_015),
            ("18beta1", 180_000),
            ("19devel", 190_000),
            ("17.0", 170_000),
        ] {
            assert_eq!(version(said), Some(ServerVersion(number)), "{said}");
        }
        for bad in ["", "devel", "99999.1"] {
            assert_eq!(version(bad), None);
        }
    }
}
