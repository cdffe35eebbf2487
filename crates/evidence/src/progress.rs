//! How long work tells how far it is, without knowing whether a terminal listens.

use crate::Message;

/// Receives the progress of long work. The surface draws bars; tests use [`Quiet`].
pub trait Progress: Send + Sync {
    /// A piece of work begins; `total` is in bytes or items where known.
    fn begin(&self, what: Message, total: Option<u64>);
    /// So many more bytes or items are done.
    fn advance(&self, by: u64);
    /// The piece of work is done.
    fn done(&self);
    /// A line worth reading, such as one migration's revision and duration.
    fn note(&self, what: Message);
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: Message, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn done(&self) {}
    fn note(&self, _: Message) {}
}
