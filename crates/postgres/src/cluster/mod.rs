//! PostgreSQL servers of our own: an installation found or fetched, a persistent cluster in a
//! folder (`up dev`), and temporary clusters for tests and gates.
//!
//! Whatever runs here listens on a private socket and on loopback only, asks for SCRAM passwords,
//! and never runs as root.

mod embedded;
mod endpoint;
mod fetch;
mod files;
mod initdb;
mod install;
mod layout;
mod lock;
mod occupied;
mod pins;
mod places;
mod processes;
mod restored;
mod room;
mod server;
mod settings;
mod start;
mod template;
mod temporary;
mod testing;
mod tls_files;
mod tools;
mod user;

pub use embedded::{Embedded, EmbeddedSpec, State};
pub use install::{Installation, Search};
pub use occupied::{owner_of_files, server_in};
pub use places::{Purpose, reachable_dir};
pub use restored::{JOB_LIBRARIES, Restored, RestoredOptions, RestoredSettings, Scratch, Told};
pub use temporary::{TemporaryCluster, TemporaryOptions};
pub use testing::{
    MAJORS_FOR_TESTS, cache_for_tests, for_tests, for_tests_version, for_tests_version_with, for_tests_with,
    installation_for_tests, installation_for_tests_version,
};
