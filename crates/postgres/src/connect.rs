//! Reaching a server: which hosts and addresses are tried in which order, encrypted or not, and
//! what a refusal means for the next attempt.
//!
//! Sessions and replication connections share it; each says how it opens itself at one address.

mod attempt;
pub(crate) mod refusal;

use std::future::Future;

use obyra_evidence::{Failure, text};

use crate::conninfo::{Conninfo, TargetSessionAttrs};
use crate::{Result, tls};
pub(crate) use attempt::Attempt;
pub(crate) use refusal::Refusal;

/// The name of our connections in `pg_stat_activity`, unless the connection string has another.
pub(crate) const APPLICATION_NAME: &str = "obyra-db";

/// What kind of server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub in_recovery: bool,
    pub read_only: bool,
}

/// How one kind of connection is opened at one address.
pub(crate) trait Establish: Sync {
    /// What is opened.
    type Connection: Send;

    /// Opens it, encrypted or not. The caller sets the time limit.
    fn establish(
        &self,
        attempt: &Attempt<'_>,
        encrypted: bool,
    ) -> impl Future<Output = std::result::Result<(Self::Connection, Kind), Refusal>> + Send;
}

/// Connects to the first host that answers and is of the wanted kind.
pub(crate) async fn connect<E: Establish>(target: &Conninfo, how: &E) -> Result<E::Connection> {
    let tls = tls::client_config(target)?;
    let mut misses = Vec::new();
    for wanted in passes(target.target_session_attrs()) {
        for host in target.hosts() {
            let addresses = match attempt::addresses(host, target.connect_timeout()).await {
                Ok(addresses) => addresses,
                Err(failure) => {
                    misses.push(failure);
                    continue;
                }
            };
            for address in addresses {
                let attempt = Attempt { target, host, address, tls: &tls };
                match attempt.run(how).await {
                    Ok((connection, kind)) if suits(wanted, kind) => return Ok(connection),
                    Ok(_) => misses.push(Failure::new(
                        text::postgres::WRONG_KIND_OF_SERVER.with("server", host).with("wanted", wanted),
                    )),
                    // Another host would refuse the same credentials, and count it as one more try.
                    Err(refused) if refused.is_final => return Err(refused.failure),
                    Err(refused) => misses.push(refused.failure),
                }
            }
        }
    }
    Err(no_host(target, misses))
}

/// `prefer-standby` goes round twice: once for a standby, once for whatever there is.
fn passes(wanted: TargetSessionAttrs) -> Vec<TargetSessionAttrs> {
    match wanted {
        TargetSessionAttrs::PreferStandby => vec![TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
        other => vec![other],
    }
}

fn suits(wanted: TargetSessionAttrs, kind: Kind) -> bool {
    match wanted {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => true,
        TargetSessionAttrs::ReadWrite => !kind.read_only,
        TargetSessionAttrs::ReadOnly => kind.read_only,
        TargetSessionAttrs::Primary => !kind.in_recovery,
        TargetSessionAttrs::Standby => kind.in_recovery,
    }
}

/// One failure for one reason; for several, one that lists them in the order of the attempts.
fn no_host(target: &Conninfo, misses: Vec<Failure>) -> Failure {
    let mut reasons: Vec<Failure> = Vec::new();
    for miss in misses {
        if reasons.iter().all(|reason| reason.to_string() != miss.to_string()) {
            reasons.push(miss);
        }
    }
    if reasons.len() == 1 {
        return reasons.remove(0);
    }
    let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    let failure =
        Failure::new(text::postgres::NO_HOST.with("hosts", target.host_summary())).because(words.join("; "));
    match reasons.into_iter().find_map(|reason| reason.mend) {
        Some(mend) => failure.mended_by(mend),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_server_suits_what_asks_for_it() {
        use TargetSessionAttrs as T;
        let primary = Kind { in_recovery: false, read_only: false };
        let read_only_primary = Kind { in_recovery: false, read_only: true };
        let standby = Kind { in_recovery: true, read_only: true };
        let suited = |wanted| [primary, read_only_primary, standby].map(|kind| suits(wanted, kind));
        assert_eq!(suited(T::Any), [true, true, true]);
        assert_eq!(suited(T::ReadWrite), [true, false, false]);
        assert_eq!(suited(T::ReadOnly), [false, true, true]);
        assert_eq!(suited(T::Primary), [true, true, false]);
        assert_eq!(suited(T::Standby), [false, false, true]);
        assert_eq!(passes(T::PreferStandby), [T::Standby, T::Any]);
    }
}
