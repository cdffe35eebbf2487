//! Somebody dies in the middle of a backup, again and again: the backup, the WAL receiver, the server, the store.
//! Nothing that the archive acknowledged is lost, every backup that is listed can be read, and what is broken is
//! said to be broken.
//!
//! `OBYRA_DB_CRASH_ROUNDS` says how many rounds (20), `OBYRA_DB_CRASH_SEED` which blows fall when (any; it is
//! printed). `cargo xtask bench crash` runs more of them. One cluster and one repository live through all rounds.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test has nothing else to do")]

mod project;

#[path = "crash/dice.rs"]
mod dice;
#[path = "crash/load.rs"]
mod load;
#[path = "crash/site.rs"]
mod site;
#[path = "crash/store.rs"]
mod store;

use std::time::{Duration, Instant};

use dice::Dice;
use rustix::process::{Signal, kill_process};
use site::Site;

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// The backup is killed.
    Backup,
    /// The WAL receiver is killed.
    Receiver,
    /// Both are, as when their machine fails.
    Both,
    /// The server and all its processes are killed.
    Server,
    /// The server stops at once.
    ServerStops,
    /// One process of the server dies, and the server begins anew.
    Backend,
    /// Every replication connection is cut.
    Connections,
    /// The store takes nothing: it is read-only.
    ReadOnly,
    /// The store takes nothing: it is full.
    Full,
    /// Whoever writes to the store hangs for a while.
    Latency,
}

const BLOWS: [Blow; 10] = [
    Blow::Backup,
    Blow::Receiver,
    Blow::Both,
    Blow::Server,
    Blow::ServerStops,
    Blow::Backend,
    Blow::Connections,
    Blow::ReadOnly,
    Blow::Full,
    Blow::Latency,
];

/// Every so many rounds everything is read again and the newest backup is restored.
const PROVE_EVERY: u64 = 10;

/// Every so many rounds something is damaged on purpose.
const DAMAGE_EVERY: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_broken_is_hidden() {
    let rounds = number("OBYRA_DB_CRASH_ROUNDS").unwrap_or(20);
    let seed = number("OBYRA_DB_CRASH_SEED").unwrap_or_else(dice::any_seed);
    eprintln!("{rounds} rounds; again: OBYRA_DB_CRASH_SEED={seed}");
    let begun = Instant::now();
    let mut dice = Dice::new(seed);
    let mut site = Site::open().await;
    let mut finished = 0;
    for round in 1..=rounds {
        // Each blow falls once before any falls twice.
        let blow = BLOWS[usize::try_from((round - 1) % 10).unwrap()];
        let blow = if round > 10 { BLOWS[dice.below(10)] } else { blow };
        finished += u64::from(strike(&mut site, &mut dice, blow).await);
        site.acknowledged_is_archived().await;
        if round % DAMAGE_EVERY == 0 {
            site.damage_is_told(&mut dice).await;
        }
        if round % PROVE_EVERY == 0 || round == rounds {
            site.prove().await;
        }
        let (rows, seconds) = (site.load.rows(), begun.elapsed().as_secs());
        eprintln!("round {round}: {blow:?}; {finished} backups ended, {rows} rows acknowledged, {seconds} s");
    }
    site.close().await;
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// One round: a backup runs, the blow falls, everybody comes back. Whether the backup ended well.
async fn strike(site: &mut Site, dice: &mut Dice, blow: Blow) -> bool {
    site.receive();
    let mut backup = site.run_backup(dice.below(2) == 0);
    // The moment is what is random here, a little after its end included.
    tokio::time::sleep(Duration::from_millis(dice.below(site.usual * 5 / 4) as u64)).await;
    match blow {
        Blow::Backup => backup.kill(),
        Blow::Receiver => site.receiver().kill(),
        Blow::Both => {
            backup.kill();
            site.receiver().kill();
        }
        Blow::Server => site.kill_server(Signal::KILL).await,
        Blow::ServerStops => site.kill_server(Signal::QUIT).await,
        Blow::Backend => site.kill_backend(dice).await,
        Blow::Connections => site.cut_connections().await,
        Blow::ReadOnly => site.store.read_only(),
        Blow::Full => site.store.full(),
        Blow::Latency => {
            for process in [backup.pid(), site.receiver().pid()].into_iter().flatten() {
                let _ = kill_process(process, Signal::STOP);
            }
        }
    }
    if matches!(blow, Blow::ReadOnly | Blow::Full | Blow::Latency) {
        tokio::time::sleep(Duration::from_millis(dice.below(1000) as u64)).await;
        site.store.well();
        for process in [backup.pid(), site.receiver().pid()].into_iter().flatten() {
            let _ = kill_process(process, Signal::CONT);
        }
    }
    site.start_server().await;
    site.receive();
    let ended = backup.ended().await;
    let told = backup.said();
    // Only what struck it, or the server that it reads, or the store, may end it.
    assert!(ended || !matches!(blow, Blow::Receiver | Blow::Latency), "{told}");
    if ended {
        site.remember(&told);
    }
    ended
}
