//! Seeds: numbered SQL files that fill what every environment needs, each applied once,
//! in its own transaction, recorded with its checksum, and proven to be idempotent.
//!
//! `discover` reads the folder, `observe` the tracking table, `plan` compares them without
//! touching anything, `apply` does it under the lock, `verify` proves it on a copy.

mod apply;
mod files;
mod observe;
mod plan;
mod policy;
mod run;
mod scan;
mod verify;

pub use apply::{Applied, Planned, apply};
pub use files::{Seed, discover};
pub use observe::{Observed, Recorded, Tracking, observe};
pub use plan::{Action, Plan, Step, plan};
pub use policy::Policy;
pub use verify::{Change, Copied, Proof, Proven, Target, prove, verify};

use obyra_postgres::Result;
