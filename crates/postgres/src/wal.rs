//! PostgreSQL's words for the write-ahead log: positions, timelines, segments and the files of an archive.
//!
//! Everything here is pure: text and numbers in, text and numbers out
//! (<https://www.postgresql.org/docs/current/wal-internals.html>).

mod file_name;
mod lsn;
mod segment;
mod timeline;

pub use file_name::WalFileName;
pub use lsn::Lsn;
pub use segment::{SegmentName, WalSegmentSize};
pub use timeline::{TimelineHistory, TimelineId, TimelineSwitch};
