//! Importing real databases: what is written is short, complete, and changes nothing.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]
#![allow(clippy::print_stdout, reason = "cargo shows what a failed test printed")]

mod limits;
mod messy;
mod random;
mod scale;
mod support;
