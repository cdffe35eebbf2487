//! The append-only, hash-chained ledger of evidence: one SQLite file that several processes may
//! append to, in which no statement updates or deletes, and whose export an auditor can verify
//! without this program (docs/evidence.md).

mod chain;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

pub use chain::GENESIS;

use crate::{Failure, Outcome, Record, Result, text};
use chain::{Broken, Walk};
use store::{Order, Store};

/// A record in its place of the chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// The hash of the record before it, or [`GENESIS`].
    pub previous: String,
    /// The hash over `previous`, the number and the record.
    pub hash: String,
    /// The record.
    pub record: Record,
}

/// Which records to read. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this environment.
    pub environment: Option<String>,
    /// Only subjects that begin so: `access` finds `access.apply`.
    pub subject_prefix: Option<String>,
    /// Only what was observed at this time or later.
    pub since: Option<Timestamp>,
    /// Only so many, the newest.
    pub limit: Option<usize>,
}

impl Filter {
    fn lets_through(&self, record: &Record) -> bool {
        self.environment.as_ref().is_none_or(|wanted| *wanted == record.environment)
            && self.subject_prefix.as_ref().is_none_or(|prefix| record.subject.starts_with(prefix))
            && self.since.is_none_or(|since| record.at >= since)
    }
}

/// What [`Ledger::verify`] proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many records the chain holds.
    pub records: u64,
    /// The hash of the last one. Whoever keeps it elsewhere can later prove that none was removed.
    pub head_hash: String,
}

/// The ledger, open. It may be shared between threads.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
}

impl Ledger {
    /// Opens the ledger; makes the file (mode 0600) and its folder where they are absent.
    pub fn open(file: &Path) -> Result<Ledger> {
        Ok(Ledger { store: Store::create(file)? })
    }

    /// Opens a ledger that exists, for commands that only observe.
    pub fn open_existing_readonly(file: &Path) -> Result<Ledger> {
        Ok(Ledger { store: Store::open_readonly(file)? })
    }

    /// Appends a record. When this returns, it is on the disk.
    pub fn append(&self, record: &Record) -> Result<Entry> {
        let link = self.store.append(&self.written(record)?)?;
        self.entry(link)
    }

    /// Appends records together: all of them, or none.
    pub fn append_all(&self, records: &[Record]) -> Result<()> {
        let written = records.iter().map(|record| self.written(record)).collect::<Result<Vec<_>>>()?;
        self.store.append_all(&written)
    }

    fn written(&self, record: &Record) -> Result<String> {
        // JSON has no NaN: the record could be written, but never read back.
        if let Some((name, _)) = record.figures.iter().find(|(_, value)| !value.is_finite()) {
            let what = text::evidence::LEDGER_FIGURE.with("name", name).with("subject", &record.subject);
            return Err(Failure::new(what));
        }
        chain::canonical(record).map_err(|e| self.store.said(text::evidence::LEDGER_FAILED).because(e))
    }

    /// The records that the filter lets through, oldest first.
    pub fn records(&self, filter: &Filter) -> Result<Vec<Entry>> {
        let limit = filter.limit.unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        self.newest_first(|entry| {
            if entries.len() == limit {
                return ControlFlow::Break(());
            }
            if filter.lets_through(&entry.record) {
                entries.push(entry);
            }
            ControlFlow::Continue(())
        })?;
        entries.reverse();
        Ok(entries)
    }

    /// The newest record of exactly this subject in an environment.
    pub fn latest(&self, environment: &str, subject: &str) -> Result<Option<Entry>> {
        let mut latest = None;
        self.newest_first(|entry| {
            if entry.record.environment == environment && entry.record.subject == subject {
                latest = Some(entry);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(latest)
    }

    /// Since when the records of a subject have had the same outcome as the newest one.
    pub fn unchanged_since(&self, environment: &str, subject: &str) -> Result<Option<Timestamp>> {
        Ok(self.unchanged_since_each(environment, subject)?.remove(subject))
    }

    /// The same for each subject that begins so, in one reading.
    pub fn unchanged_since_each(
        &self,
        environment: &str,
        subject_prefix: &str,
    ) -> Result<BTreeMap<String, Timestamp>> {
        let mut runs: BTreeMap<String, Run> = BTreeMap::new();
        self.newest_first(|Entry { record, .. }| {
            if record.environment == environment && record.subject.starts_with(subject_prefix) {
                let (at, outcome) = (record.at, record.outcome);
                let run = runs.entry(record.subject).or_insert(Run { since: at, outcome, over: false });
                run.over |= run.outcome != outcome;
                run.since = if run.over { run.since } else { at };
            }
            ControlFlow::Continue(())
        })?;
        Ok(runs.into_iter().map(|(subject, run)| (subject, run.since)).collect())
    }

    /// Reads the whole chain. The failure names the first record that was changed, removed or moved.
    pub fn verify(&self) -> Result<Verified> {
        self.walk(|_| {})
    }

    /// Verifies the chain, and that it still holds the record whose hash was kept elsewhere: this
    /// finds that records were removed from the end, which a chain alone cannot show.
    pub fn verify_against(&self, head_hash: &str) -> Result<Verified> {
        let mut held = head_hash == GENESIS;
        let verified = self.walk(|link| held |= link.hash == head_hash)?;
        if held {
            return Ok(verified);
        }
        let mut failure = self.store.said(text::evidence::LEDGER_TRUNCATED);
        failure.what = failure.what.with("hash", head_hash);
        Err(failure.mended_by(text::evidence::MEND_LEDGER_KEEP))
    }

    /// Writes the chain as JSON lines, in the format of docs/evidence.md; returns how many.
    pub fn export(&self, writer: &mut dyn Write) -> Result<u64> {
        let unwritten = |e: io::Error| Failure::new(text::evidence::LEDGER_EXPORT).because(e);
        let mut count = 0;
        self.store.each(Order::OldestFirst, |link| {
            let line = serde_json::to_string(&link).map_err(|e| unwritten(e.into()))?;
            writeln!(writer, "{line}").map_err(unwritten)?;
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        writer.flush().map_err(unwritten)?;
        Ok(count)
    }

    fn walk(&self, mut each: impl FnMut(&Link)) -> Result<Verified> {
        self.store.check_pages()?;
        let mut walk = Walk::begin();
        // Read before the walk: an append meanwhile must not look like a removal.
        let highest_ever = self.store.highest_ever()?;
        self.store.each(Order::OldestFirst, |link| {
            walk.step(&link).map_err(|broken| self.broken(broken))?;
            each(&link);
            self.entry(link).map(|_| ControlFlow::Continue(()))
        })?;
        walk.end(highest_ever).map_err(|broken| self.broken(broken))?;
        Ok(Verified { records: walk.records.unsigned_abs(), head_hash: walk.head })
    }

    fn newest_first(&self, mut visit: impl FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        self.store.each(Order::NewestFirst, |link| Ok(visit(self.entry(link)?)))
    }

    fn entry(&self, link: Link) -> Result<Entry> {
        let record = serde_json::from_str(&link.record).map_err(|e| {
            self.at_record(text::evidence::LEDGER_UNREADABLE_RECORD, link.sequence).because(e)
        })?;
        let Link { sequence, previous, hash, .. } = link;
        Ok(Entry { sequence: sequence.unsigned_abs(), previous, hash, record })
    }

    fn broken(&self, broken: Broken) -> Failure {
        match broken {
            Broken::Changed(number) => self.at_record(text::evidence::LEDGER_CHANGED, number),
            Broken::Removed(number) => self.at_record(text::evidence::LEDGER_REMOVED, number),
            Broken::Reordered(number) => self.at_record(text::evidence::LEDGER_REORDERED, number),
        }
    }

    fn at_record(&self, code: crate::Code, number: i64) -> Failure {
        let mut failure = self.store.said(code).mended_by(text::evidence::MEND_LEDGER_KEEP);
        failure.what = failure.what.with("number", number);
        failure
    }
}

/// The newest records of a subject, followed back in time until their outcome was another one.
struct Run {
    since: Timestamp,
    outcome: Outcome,
    over: bool,
}

/// A record as it is stored and exported: as text, so that its bytes are those that were hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Link {
    sequence: i64,
    previous: String,
    record: String,
    hash: String,
}
