//! What a server of 17 or later knows of its changes: summaries of its WAL, by which it sends only the blocks
//! that changed since the parent (<https://www.postgresql.org/docs/current/continuous-archiving.html>).
//!
//! Its word is taken for relations' rows and indexes alone, and only as far as it can be trusted: a file that
//! the manifest we upload does not name is sent whole. Whatever speaks against it costs time, never content.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use obyra_evidence::{Failure, Message, text};
use obyra_postgres::replication::Walsender;
use obyra_postgres::wal::{Lsn, TimelineId};
use obyra_postgres::{Conninfo, Limits, Session, sql_failure};

use super::super::parents::{Known, Parents};
use super::super::server::Server;
use super::super::stage::Stage;
use crate::Result;
use crate::page::{Fork, RelationFile};
use crate::repository::hex;
use crate::repository::layout::{BLOCK, EXTENT_BYTES};
use crate::repository::manifest::Header;

/// After so long everything is read again: what no summary tells of, such as a disk that forgets, is found
/// then. Half a day less than a week, so that it stays on the same day.
const ALL_READ_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24 - 12);
/// Bytes of the manifest that go at a time.
const PIECE_BYTES: usize = 60 << 10;
/// Maps that are read at the same time.
const AT_ONCE: usize = 8;
/// PostgreSQL's own tablespaces: of databases, and of what they share.
const DEFAULT_SPACE: u32 = 1663;
const GLOBAL_SPACE: u32 = 1664;

/// What the server shall compare with.
pub(super) struct Summaries<'a> {
    parents: &'a Parents,
    parent: &'a Header,
    /// When the last backup began for which everything was read.
    pub(super) all_read: Timestamp,
    session: Session,
    /// Files that are wanted whole, although the parent has them.
    whole: HashSet<&'a str>,
}

/// A relation: its tablespace, its database, its file number.
type Relation = (u32, u32, u32);

/// Relations that were truncated since, and to how many blocks at the least.
pub(super) struct Truncated(HashMap<Relation, u32>);

impl<'a> Summaries<'a> {
    /// Whether they are of use: `Ok(None)` where the server has none, or there is no parent; what speaks
    /// against them otherwise.
    pub(super) async fn of(
        stage: &Stage<'a>,
        walsender: &mut Walsender,
        (server, target): (&Server, &Conninfo),
    ) -> std::result::Result<Option<Summaries<'a>>, Message> {
        let Some(parent) = stage.parent else { return Ok(None) };
        let on = server.version.at_least(17)
            && walsender.show("summarize_wal").await.is_ok_and(|value| value == "on");
        if !on {
            return Ok(None);
        }
        let says = |failure: Failure| text::backup::TAKE_ALL_SAYS.with("why", failure);
        let all_read = parent.changed_only.map_or(parent.started, |changed| changed.all_read);
        if stage.now.duration_since(all_read) >= ALL_READ_AFTER {
            return Err(text::backup::TAKE_ALL_DUE.with("when", all_read));
        }
        let timeline = walsender.identify_system().await.map_err(says)?.timeline.0;
        if timeline != parent.timeline {
            return Err(text::backup::TAKE_ALL_TIMELINE.with("timeline", timeline));
        }
        if server.shape.checksums != parent.cluster.checksums {
            return Err(text::backup::TAKE_ALL_CHECKSUMS.message());
        }
        if parent.damaged_more > 0 {
            return Err(text::backup::TAKE_ALL_DAMAGED.message());
        }
        let limits = Limits { lock_timeout: None, statement_timeout: None };
        let session = Session::connect(target, limits).await.map_err(says)?;
        let damaged = parent.damaged.iter().map(|block| block.path.as_str());
        let mut found =
            Summaries { parents: stage.parents, parent, all_read, session, whole: damaged.collect() };
        let summaries = found.listed().await.map_err(says)?;
        if !reach_back(&summaries, parent.start) {
            return Err(text::backup::TAKE_ALL_GONE.with("position", parent.start));
        }
        found.leave_out_unreadable().await;
        Ok(Some(found))
    }

    /// Files whose maps cannot be read are wanted whole.
    async fn leave_out_unreadable(&mut self) {
        let parents = self.parents;
        let extents = self.named().flat_map(|(path, known)| (0..known.extents.len()).map(move |n| (path, n)));
        let read = extents.map(|(path, extent)| async move {
            let piece = parents.of_complete(path, extent as u32).await;
            if matches!(piece, Ok(Some(_))) { None } else { Some(path) }
        });
        let extents: Vec<_> = read.collect();
        let unreadable: Vec<&str> =
            stream::iter(extents).buffered(AT_ONCE).filter_map(|path| async move { path }).collect().await;
        self.whole.extend(unreadable);
    }

    /// The files of the parent of which changed blocks are enough: segments of main forks, in whole blocks.
    ///
    /// Not those of the visibility map, which is small: earlier releases of 17 and 18 log that a bit of it is
    /// cleared without naming its page. The free space map comes whole by itself.
    fn named(&self) -> impl Iterator<Item = (&'a str, &'a Known)> {
        self.parents.complete().filter(|(path, known)| {
            let relation = RelationFile::of(path).filter(|file| file.fork == Fork::Main && !file.temporary);
            relation.is_some()
                && known.size > 0
                && known.size % BLOCK as u64 == 0
                && known.extents.len() as u64 == known.size.div_ceil(EXTENT_BYTES)
                && !self.whole.contains(path)
        })
    }

    /// Gives the server a manifest of the parent: its files of which changed blocks are enough, and its WAL.
    pub(super) async fn upload(&self, walsender: &mut Walsender) -> Result<()> {
        let mut lines = Lines::begin(&self.parent.cluster.system_identifier);
        let mut files = self.named();
        let mut ended = false;
        let pieces = std::iter::from_fn(|| {
            if ended {
                return None;
            }
            while lines.piece.len() < PIECE_BYTES {
                match files.next() {
                    Some((path, known)) => lines.file(path, known.size),
                    None => {
                        lines.end(self.parent.timeline, self.parent.start, self.parent.stop);
                        ended = true;
                        break;
                    }
                }
            }
            Some(Ok(lines.take(ended)))
        });
        walsender.upload_manifest(stream::iter(pieces)).await
    }

    /// What was truncated between the parent's start and the position where this backup begins.
    pub(super) async fn truncated(&self, start: Lsn, timeline: TimelineId) -> Result<Truncated> {
        let changed = |why: &str| Failure::new(text::backup::TAKE_SUMMARIES).because(why);
        if timeline.0 != self.parent.timeline {
            return Err(changed("the server changed its timeline"));
        }
        let mut summaries = self.listed().await?;
        summaries.retain(|(_, to)| *to > self.parent.start);
        summaries.retain(|(from, _)| *from < start);
        let mut reached = self.parent.start;
        for (from, to) in &summaries {
            if *from > reached {
                break;
            }
            reached = reached.max(*to);
        }
        if reached < start {
            return Err(changed("summaries of the WAL are missing"));
        }
        let (from, to): (Vec<String>, Vec<String>) =
            summaries.iter().map(|(from, to)| (from.to_string(), to.to_string())).unzip();
        let limits = "SELECT reltablespace::int8, reldatabase::int8, relfilenode::int8, min(relblocknumber)::int8 \
                      FROM unnest($1::text[], $2::text[]) AS summary (a, b) \
                      CROSS JOIN LATERAL pg_wal_summary_contents($3, a::pg_lsn, b::pg_lsn) \
                      WHERE is_limit_block AND relforknumber = 0 GROUP BY 1, 2, 3";
        let timeline = i64::from(timeline.0);
        let rows = self.session.query(limits, &[&from, &to, &timeline]).await;
        let rows = rows.map_err(|error| sql_failure(text::backup::TAKE_SUMMARIES.message(), &error))?;
        let number = |row: &obyra_postgres::tokio_postgres::Row, at: usize| row.get::<_, i64>(at) as u32;
        let limit = |row| ((number(row, 0), number(row, 1), number(row, 2)), number(row, 3));
        Ok(Truncated(rows.iter().map(limit).collect()))
    }

    /// The summaries that there are of the parent's timeline: from where to where, in order.
    async fn listed(&self) -> Result<Vec<(Lsn, Lsn)>> {
        let list = "SELECT start_lsn::text, end_lsn::text FROM pg_available_wal_summaries() \
                    WHERE tli = $1 ORDER BY start_lsn, end_lsn";
        let rows = self.session.query(list, &[&i64::from(self.parent.timeline)]).await;
        let rows = rows.map_err(|error| sql_failure(text::backup::TAKE_SUMMARIES.message(), &error))?;
        let position = |text: String| text.parse::<Lsn>();
        rows.iter().map(|row| Ok((position(row.get(0))?, position(row.get(1))?))).collect()
    }
}

/// Whether summaries begin early enough; one that is not written yet may.
fn reach_back(summaries: &[(Lsn, Lsn)], start: Lsn) -> bool {
    summaries.iter().find(|(_, to)| *to > start).is_none_or(|(from, _)| *from <= start)
}

impl Truncated {
    /// The block of a file from which on nothing is as it was.
    pub(super) fn limit(&self, path: &str, segment_blocks: u32) -> u32 {
        let relation = relation(path).and_then(|relation| self.0.get(&relation));
        let first = RelationFile::of(path).map_or(0, |file| file.first_block(segment_blocks));
        relation.map_or(u32::MAX, |limit| limit.saturating_sub(first))
    }
}

/// Which relation's a file is.
fn relation(path: &str) -> Option<Relation> {
    let number = RelationFile::of(path)?.number.parse().ok()?;
    let folders: Vec<&str> = path.split('/').collect();
    match folders.as_slice() {
        ["global", _] => Some((GLOBAL_SPACE, 0, number)),
        ["base", database, _] => Some((DEFAULT_SPACE, database.parse().ok()?, number)),
        ["pg_tblspc", space, _, database, _] => Some((space.parse().ok()?, database.parse().ok()?, number)),
        _ => None,
    }
}

/// A manifest as the server wants it
/// (<https://www.postgresql.org/docs/current/backup-manifest-format.html>).
struct Lines {
    piece: String,
    first: bool,
    sum: Context,
}

impl Lines {
    fn begin(system_identifier: &str) -> Lines {
        let piece = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system_identifier},\n\"Files\": ["
        );
        Lines { piece, first: true, sum: Context::new(&SHA256) }
    }

    fn file(&mut self, path: &str, size: u64) {
        let comma = if std::mem::take(&mut self.first) { "" } else { "," };
        let _ = write!(self.piece, "{comma}\n{{ \"Path\": \"{path}\", \"Size\": {size} }}");
    }

    fn end(&mut self, timeline: u32, start: Lsn, stop: Lsn) {
        let range = format!("\"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{stop}\"");
        let _ = write!(self.piece, "\n],\n\"WAL-Ranges\": [\n{{ {range} }}\n],\n");
    }

    /// What there is of it, with its checksum at its end.
    fn take(&mut self, ended: bool) -> Bytes {
        self.sum.update(self.piece.as_bytes());
        let mut piece = std::mem::take(&mut self.piece);
        if ended {
            let sum = hex::encode(self.sum.clone().finish().as_ref());
            let _ = writeln!(piece, "\"Manifest-Checksum\": \"{sum}\"}}");
        }
        piece.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_its_lines() {
        let mut lines = Lines::begin("7301234567890123456");
        lines.file("base/5/1", 8192);
        let mut manifest = lines.take(false).to_vec();
        lines.file("global/2", 16384);
        lines.end(3, Lsn(0x200_0028), Lsn(0x1_0000_0000));
        manifest.extend_from_slice(&lines.take(true));
        let manifest = String::from_utf8(manifest).unwrap();
        let value: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(value["Files"][1]["Path"], "global/2");
        assert_eq!(value["WAL-Ranges"][0]["End-LSN"], "1/0");
        let (summed, last) = manifest.split_at(manifest.find("\"Manifest-Checksum\"").unwrap());
        let sum = aws_lc_rs::digest::digest(&SHA256, summed.as_bytes());
        assert_eq!(last, format!("\"Manifest-Checksum\": \"{}\"}}\n", hex::encode(sum.as_ref())));
    }

    #[test]
    fn a_limit_counts_in_the_relation_and_files_are_its_segments() {
        let limits = [((1663, 5, 16384), 150), ((1664, 0, 1262), 2), ((9, 5, 7), 1)];
        let truncated = Truncated(limits.into_iter().collect());
        let limit = |path| truncated.limit(path, 100);
        assert_eq!((limit("base/5/16384"), limit("base/5/16384.1")), (150, 50));
        assert_eq!((limit("base/5/16384.2"), limit("global/1262")), (0, 2));
        assert_eq!(limit("pg_tblspc/9/PG_17_202406281/5/7"), 1);
        assert_eq!((limit("base/6/16384"), limit("base/5/1")), (u32::MAX, u32::MAX));
    }

    #[test]
    fn summaries_begin_before_the_parent_or_are_not_written_yet() {
        let listed = |pairs: &[(u64, u64)]| pairs.iter().map(|(a, b)| (Lsn(*a), Lsn(*b))).collect::<Vec<_>>();
        assert!(reach_back(&listed(&[(1, 5), (5, 9)]), Lsn(5)));
        assert!(reach_back(&listed(&[(1, 5)]), Lsn(5)) && reach_back(&[], Lsn(5)));
        assert!(!reach_back(&listed(&[(1, 5), (6, 9)]), Lsn(5)));
    }
}
