//! A repository and its store, from outside: verified, copied, repaired.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod copy;
#[path = "../wal/faulty.rs"]
#[allow(dead_code, reason = "the WAL's tests use the rest")]
mod faulty;
mod sample;
mod tamper;
mod verify;
