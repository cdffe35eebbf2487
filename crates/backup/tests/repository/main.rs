//! A repository and its store, from outside: verified, copied, repaired.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod copy;
mod limited;
mod sample;
mod tamper;
mod verify;
