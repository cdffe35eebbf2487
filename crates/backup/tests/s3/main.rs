//! Repositories on a real S3 server: what it refuses, what happens to requests on their way, and a cluster
//! that is backed up and brought back through all of that.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]
#![allow(clippy::print_stderr, reason = "what a server said when a test fails")]

mod faults;
mod locked;
#[path = "../packages/mod.rs"]
mod packages;
mod proxy;
#[path = "../repository/sample.rs"]
#[allow(dead_code, reason = "the repository's tests use the rest")]
mod sample;
mod seaweed;
#[path = "../wal/server.rs"]
#[allow(dead_code, reason = "the WAL's tests use the rest")]
mod server;
#[path = "../take/site.rs"]
#[allow(dead_code, reason = "the tests of backups use the rest")]
mod site;
mod store;
mod whole;
