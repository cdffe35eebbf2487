//! The archive of the write-ahead log: received over the replication protocol or pushed by the server, kept
//! without a hole, and given back to recovery.
//!
//! What was reported to a server as flushed is durable in the store. What is in the archive is read from the
//! archive; nothing else is remembered.

mod archive;
mod content;
mod during;
mod event;
mod fetch;
mod index;
mod name;
mod pages;
mod push;
mod receive;
mod resume;
mod spool;
mod tail;

pub use archive::{Archive, Put};
pub use content::Content;
pub use during::{BackupWal, ProvenWal, ReservedWal, prove};
pub use event::{ArchiveEvent, Lag};
pub(crate) use fetch::unfinished;
pub use fetch::{Fetched, fetch, fetch_exit_code};
pub use index::{Chain, Hole, Index, Stretch, TimelineIndex, lineage};
pub use name::{Part, WalObject, folder};
pub(crate) use pages::refusal;
pub use pages::{Fault, PageCheck, SegmentHeader, cluster_of};
pub use push::{Pushed, push};
pub use receive::{ReceiveOptions, Tell, receive};
