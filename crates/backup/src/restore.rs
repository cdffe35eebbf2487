//! Restoring: which backup and which WAL reach the wanted point, the files put back, recovery set up.
//!
//! `plan` is pure. Files are written so that no server starts on them before they are all there:
//! `global/pg_control` comes last, and an interrupted restore goes on where it was.

mod control;
mod coverage;
mod feed;
mod files;
mod instance;
mod moments;
mod oids;
mod part;
mod place;
mod plan;
mod prepared;
mod recovery;
mod survey;
mod target;
mod whole;

pub use control::Control;
pub use coverage::Coverage;
pub(crate) use files::panicked as interrupted;
pub use files::{Restore, SmallFile, Written, read as read_file};
pub use instance::{Instance, Stage, Timed};
pub use part::{BringBack, Brought, BroughtTable, Part, TableName};
pub(crate) use place::failed as path_failed;
pub use place::{Into, Mapped, Place, State};
pub use plan::{Found, Known, PassedOver, Plan, Rates, Replay, Wish, plan};
pub use recovery::{Action, Configured, Recovery};
pub use survey::{find, survey};
pub use target::{Stop, Target};
pub use whole::{Ready, Whole};
