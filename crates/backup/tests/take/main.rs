//! Backups of real clusters: taken while they are written to, restored, replayed, and compared. Which test
//! keeps which trap of physical backups closed is in docs/backup-traps.md.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]
#![allow(clippy::print_stderr, reason = "what a server said when a test fails")]

mod changes;
mod expiry;
mod failover;
mod large;
#[path = "../wal/receiver.rs"]
#[allow(dead_code, reason = "the WAL's tests use the rest")]
mod receiver;
#[path = "../wal/server.rs"]
#[allow(dead_code, reason = "the WAL's tests use the rest")]
mod server;
mod site;
mod summaries;
mod whole;
