//! Puts segments and parts into the store, several at a time, again and again until the store takes them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use obyra_evidence::{Exit, Failure};
use obyra_postgres::wal::{SegmentName, WalSegmentSize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::archive::{Archive, Put};
use super::super::name::Part;
use super::super::tail::Complete;
use super::backoff::Backoff;
use crate::Result;

/// Bytes of segments that are under way to the store at once, if there is more than one.
const UNDER_WAY_BYTES: u64 = 48 << 20;

/// Segments that are under way to the store at once, however small they are.
const UNDER_WAY_MAX: u64 = 16;

/// Between two complaints about one store.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Something is durable, or the store refused it for now.
#[derive(Debug)]
pub enum Outcome {
    /// A segment is durable.
    Segment(SegmentName, Put),
    /// A part is durable.
    Part(Part),
    /// The store failed; it is tried again. Told now and then.
    Failing(Failure),
    /// The store had failed for so long, and takes WAL again.
    Back(Duration),
    /// The archive will never take it.
    Refused(Failure),
}

/// What is under way to the store.
pub struct Storing {
    archive: Archive,
    size: WalSegmentSize,
    tasks: JoinSet<()>,
    tell: mpsc::UnboundedSender<Outcome>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    failing_since: Option<Instant>,
    complained: Option<Instant>,
    /// What is told next.
    held: Option<Outcome>,
}

impl Storing {
    /// Nothing is under way yet.
    pub fn new(archive: Archive, size: WalSegmentSize) -> Storing {
        let (tell, outcomes) = mpsc::unbounded_channel();
        Storing {
            archive,
            size,
            tasks: JoinSet::new(),
            tell,
            outcomes,
            failing_since: None,
            complained: None,
            held: None,
        }
    }

    /// How many segments may be under way at once.
    pub fn segments_max(&self) -> usize {
        usize::try_from((UNDER_WAY_BYTES / self.size.bytes()).clamp(1, UNDER_WAY_MAX)).unwrap_or(1)
    }

    /// Since when the store has been failing.
    pub fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// Begins to put a segment.
    pub fn segment(&mut self, complete: Complete) {
        let (archive, size) = (self.archive.clone(), self.size);
        let Complete { segment, bytes } = complete;
        self.begin(
            move |bytes| {
                let archive = archive.clone();
                async move {
                    archive.put_segment(segment, size, bytes).await.map(|put| Outcome::Segment(segment, put))
                }
            },
            bytes,
        );
    }

    /// Begins to put a part.
    pub fn part(&mut self, part: Part, bytes: Bytes) {
        let (archive, size) = (self.archive.clone(), self.size);
        self.begin(
            move |bytes| {
                let archive = archive.clone();
                async move { archive.put_part(part, size, bytes).await.map(|_| Outcome::Part(part)) }
            },
            bytes,
        );
    }

    /// Begins to delete parts that nobody needs any more. That it fails is no harm: they are passed over,
    /// and deleted another time.
    pub fn forget(&mut self, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        let (archive, size) = (self.archive.clone(), self.size);
        self.tasks.spawn(async move {
            let _ = archive.delete_parts(&parts, size).await;
        });
    }

    fn begin<F>(&mut self, put: impl Fn(Bytes) -> F + Send + 'static, bytes: Bytes)
    where
        F: Future<Output = Result<Outcome>> + Send,
    {
        let tell = self.tell.clone();
        self.tasks.spawn(async move {
            let mut backoff = Backoff::new();
            loop {
                match put(bytes.clone()).await {
                    Ok(outcome) => break drop(tell.send(outcome)),
                    Err(failure) if failure.exit != Exit::Failed => {
                        break drop(tell.send(Outcome::Refused(failure)));
                    }
                    Err(failure) => drop(tell.send(Outcome::Failing(failure))),
                }
                tokio::time::sleep(backoff.next_pause()).await;
            }
        });
    }

    /// The next outcome. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Outcome {
        if let Some(held) = self.held.take() {
            return held;
        }
        loop {
            tokio::select! {
                Some(outcome) = self.outcomes.recv() => {
                    if let Some(outcome) = self.noted(outcome) {
                        return outcome;
                    }
                }
                Some(done) = self.tasks.join_next() => {
                    if let Err(error) = done && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Remembers how the store is; returns what is told of it.
    fn noted(&mut self, outcome: Outcome) -> Option<Outcome> {
        match outcome {
            Outcome::Failing(_) => {
                self.failing_since.get_or_insert_with(Instant::now);
                if self.complained.is_some_and(|at| at.elapsed() < COMPLAIN_EVERY) {
                    return None;
                }
                self.complained = Some(Instant::now());
                Some(outcome)
            }
            Outcome::Segment(..) | Outcome::Part(_) => {
                let Some(since) = self.failing_since.take() else { return Some(outcome) };
                self.complained = None;
                self.held = Some(outcome);
                Some(Outcome::Back(since.elapsed()))
            }
            Outcome::Refused(_) | Outcome::Back(_) => Some(outcome),
        }
    }

    /// Waits for the deletions that are under way.
    pub async fn settle(&mut self, within: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(within, all).await;
    }
}
