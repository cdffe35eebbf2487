//! PostgreSQL servers of our own: an installation found or fetched, a persistent cluster in a
//! folder (`up dev`), and temporary clusters for tests and gates.
//!
//! Whatever runs here listens on a private socket and on loopback only, asks for SCRAM passwords,
//! and never runs as root.

mod embedded;
mod install;
mod temporary;
mod testing;
mod user;

pub use embedded::{Embedded, EmbeddedSpec, State};
pub use install::{Installation, Search};
pub use temporary::{TemporaryCluster, TemporaryOptions};
pub use testing::{for_tests, for_tests_version, for_tests_with};
pub use user::{Purpose, reachable_dir};
