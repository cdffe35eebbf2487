//! Restoring: which backup and which WAL reach the wanted point, the files put back, recovery set up.
//!
//! `plan` is pure. Files are written so that no server starts on them before they are all there:
//! `global/pg_control` comes last, and an interrupted restore goes on where it was.

mod control;
mod coverage;
mod files;
mod moments;
mod place;
mod plan;
mod survey;
mod target;

pub use control::Control;
pub use coverage::{Coverage, Stretch};
pub use files::{Restore, SmallFile, Written};
pub use place::{Into, Mapped, Place, State};
pub use plan::{Found, Known, PassedOver, Plan, Rates, Replay, Wish, plan};
pub use survey::{find, survey};
pub use target::{Stop, Target};
