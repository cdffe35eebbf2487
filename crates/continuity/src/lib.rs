//! Whether the house is in order: the deploy checklist of the strategy's section 7, the further
//! lines that a machine can check, the waivers that excuse some for a time, and the runbook.
//!
//! This room decides; it does not look. The surface passes in what the other rooms observed.

mod checklist;
mod line;
pub mod observe;
pub mod plan;
pub mod policy;
pub mod render;
mod waiver;

pub use checklist::{Fact, Facts, Line, Status, Summary, checklist};
pub use line::LineId;
pub use policy::Runbook;
pub use waiver::{Until, Waiver, waiver_findings};
