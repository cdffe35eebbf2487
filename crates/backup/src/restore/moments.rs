//! The moments in the write-ahead log: ends of transactions and restore points, with their times.
//!
//! Pure: bytes of segments in, moments out. Of each record only its beginning is kept. The layout is that of
//! `XLogRecord` (src/include/access/xlogrecord.h) and of the records of `xact.c` and `xlog.c`, which did not
//! change from PostgreSQL 14 to 18; little-endian.

use jiff::Timestamp;
use obyra_postgres::wal::Lsn;

/// `XLP_FIRST_IS_CONTRECORD`: the page begins with the rest of a record.
const CONTINUES: u16 = 0x0001;
/// `XLP_LONG_HEADER`: the first page of a segment.
const IS_LONG: u16 = 0x0002;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`: a record that was left unfinished before a crash does not go on.
const GIVES_UP: u16 = 0x0008;
pub(super) const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
pub(super) const RECORD_HEADER: usize = 24;
/// `XLOG_BLCKSZ`; servers that were compiled with another size are refused elsewhere.
pub(super) const PAGE: usize = 8192;
/// What is kept of a record: enough for a restore point with its name.
const HEAD: usize = 128;
/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH: i64 = 946_684_800_000_000;

/// Something in the log that has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Where its record begins.
    pub at: Lsn,
    /// When it was written.
    pub time: Timestamp,
    /// What it is.
    pub what: What,
}

/// What a moment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The end of a transaction: committed or not. Its number is zero for a prepared one.
    End {
        /// The transaction's number.
        xid: u32,
        /// Whether it was committed.
        committed: bool,
    },
    /// A restore point.
    RestorePoint(String),
}

/// Reads segments one after the other.
#[derive(Debug, Default)]
pub struct Moments {
    /// The record that goes on in the next page.
    open: Option<Record>,
    found: Vec<Moment>,
}

#[derive(Debug)]
struct Record {
    at: Lsn,
    head: Vec<u8>,
    missing: usize,
}

impl Moments {
    /// Reads a segment, or its beginning, that starts at a position; it has to follow the one before, or
    /// nothing was read before.
    pub fn read(&mut self, start: Lsn, bytes: &[u8]) {
        for (nth, page) in bytes.chunks(PAGE).enumerate() {
            if self.page(start + (nth * PAGE) as u64, page).is_none() {
                // Zeros after a switch of segments, or the end of what was written.
                return;
            }
        }
    }

    /// What was found, in order.
    pub fn take(&mut self) -> Vec<Moment> {
        std::mem::take(&mut self.found)
    }

    /// `None` if nothing follows in this segment.
    fn page(&mut self, address: Lsn, page: &[u8]) -> Option<()> {
        let info = u16::from_le_bytes([*page.get(2)?, *page.get(3)?]);
        let said = u64::from(number(page, 8)?) | u64::from(number(page, 12)?) << 32;
        let is_ours = page[1] == 0xD1 && said == address.0;
        if !is_ours {
            self.open = None;
            return None;
        }
        if info & GIVES_UP != 0 {
            self.open = None;
        }
        let mut at = if info & IS_LONG != 0 { LONG_HEADER } else { SHORT_HEADER };
        if info & CONTINUES != 0 {
            let rest = number(page, 16)? as usize;
            let here = rest.min(page.len().checked_sub(at)?);
            if let Some(record) = self.open.take_if(|record| record.missing == rest) {
                self.add(record, &page[at..at + here]);
            } else {
                self.open = None;
            }
            if here < rest {
                return Some(());
            }
            at = aligned(at + here);
        } else {
            self.open = None;
        }
        while at + 4 <= page.len() {
            let total = number(page, at)? as usize;
            if total < RECORD_HEADER {
                return None;
            }
            let here = total.min(page.len() - at);
            let record = Record { at: address + at as u64, head: Vec::new(), missing: total };
            self.add(record, &page[at..at + here]);
            at = aligned(at + here);
        }
        Some(())
    }

    fn add(&mut self, mut record: Record, bytes: &[u8]) {
        let wanted = HEAD.saturating_sub(record.head.len()).min(bytes.len());
        record.head.extend_from_slice(&bytes[..wanted]);
        record.missing -= bytes.len();
        if record.missing > 0 {
            self.open = Some(record);
        } else {
            self.found.extend(moment(&record));
        }
    }
}

fn aligned(at: usize) -> usize {
    at.next_multiple_of(8)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// What a record is, if it has a time that recovery knows.
fn moment(record: &Record) -> Option<Moment> {
    const XLOG: u8 = 0;
    const XACT: u8 = 1;
    let head = &record.head;
    let (xid, info, manager) = (number(head, 4)?, *head.get(16)?, *head.get(17)?);
    let what = match (manager, info & 0x70) {
        (XACT, 0x00 | 0x30) => What::End { xid, committed: true },
        (XACT, 0x20 | 0x40) => What::End { xid, committed: false },
        (XLOG, 0x70) if info & 0x80 == 0 => What::RestorePoint(String::new()),
        _ => return None,
    };
    let data = main_data(head)?;
    let time = i64::from_le_bytes(data.get(..8)?.try_into().ok()?);
    let time = Timestamp::from_microsecond(time.checked_add(EPOCH)?).ok()?;
    let what = match what {
        What::RestorePoint(_) => {
            let name = data.get(8..72)?.split(|byte| *byte == 0).next()?;
            What::RestorePoint(String::from_utf8_lossy(name).into_owned())
        }
        end => end,
    };
    Some(Moment { at: record.at, time, what })
}

/// The data of a record that touches no block: after the header come at most an origin and a top
/// transaction, then the length.
fn main_data(head: &[u8]) -> Option<&[u8]> {
    let mut at = RECORD_HEADER;
    loop {
        let id = *head.get(at)?;
        match id {
            255 => return head.get(at + 2..),
            254 => return head.get(at + 5..),
            253 => at += 3,
            252 => at += 5,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of one-page segments would be too small for the format's own rules; pages are enough here.
    struct Log {
        start: Lsn,
        bytes: Vec<u8>,
    }

    impl Log {
        fn new(start: u64) -> Log {
            Log { start: Lsn(start), bytes: Vec::new() }
        }

        /// Appends a record, over as many pages as it takes, as the server would.
        fn record(&mut self, record: &[u8]) -> Lsn {
            let mut rest = record;
            self.bytes.resize(aligned(self.bytes.len()), 0);
            let mut at = None;
            while !rest.is_empty() {
                if self.bytes.len().is_multiple_of(PAGE) {
                    self.header(if at.is_some() { rest.len() as u32 } else { 0 });
                }
                at.get_or_insert(self.start + self.bytes.len() as u64);
                let here = rest.len().min(PAGE - self.bytes.len() % PAGE);
                self.bytes.extend_from_slice(&rest[..here]);
                rest = &rest[here..];
            }
            at.unwrap()
        }

        fn header(&mut self, rest: u32) {
            let address = self.start.0 + self.bytes.len() as u64;
            let is_first = self.bytes.is_empty();
            let info = if rest > 0 { CONTINUES } else { 0 } | if is_first { IS_LONG } else { 0 };
            self.bytes.extend_from_slice(&0xD113u16.to_le_bytes());
            self.bytes.extend_from_slice(&info.to_le_bytes());
            self.bytes.extend_from_slice(&1u32.to_le_bytes());
            self.bytes.extend_from_slice(&address.to_le_bytes());
            self.bytes.extend_from_slice(&rest.to_le_bytes());
            self.bytes.extend_from_slice(&[0; 4]);
            if is_first {
                self.bytes.extend_from_slice(&[0; LONG_HEADER - SHORT_HEADER]);
            }
        }

        fn padded(mut self) -> Vec<u8> {
            self.bytes.resize(self.bytes.len().next_multiple_of(PAGE), 0);
            self.bytes
        }
    }

    fn record(manager: u8, info: u8, xid: u32, before: &[u8], data: &[u8]) -> Vec<u8> {
        let mut main = before.to_vec();
        match u8::try_from(data.len()) {
            Ok(length) => main.extend([255, length]),
            Err(_) => {
                main.push(254);
                main.extend((data.len() as u32).to_le_bytes());
            }
        }
        main.extend_from_slice(data);
        let mut record = ((RECORD_HEADER + main.len()) as u32).to_le_bytes().to_vec();
        record.extend(xid.to_le_bytes());
        record.extend([0; 8]);
        record.extend([info, manager, 0, 0, 9, 9, 9, 9]);
        record.extend(main);
        record
    }

    fn time(second: i64) -> [u8; 8] {
        (second * 1_000_000).to_le_bytes()
    }

    fn point(second: i64, name: &str) -> Vec<u8> {
        let mut data = time(second).to_vec();
        data.extend(name.as_bytes());
        data.resize(72, 0);
        record(0, 0x70, 0, &[], &data)
    }

    fn shown(moments: Vec<Moment>) -> Vec<(u64, i64, What)> {
        let shown = |m: Moment| (m.at.0, m.time.as_second() - EPOCH / 1_000_000, m.what);
        moments.into_iter().map(shown).collect()
    }

    #[test]
    fn ends_and_restore_points_among_other_records() {
        let mut log = Log::new(0x100_0000);
        log.record(&record(10, 0, 7, &[0, 0, 0, 0], &[1; 50]));
        let commit = log.record(&record(1, 0x80, 7, &[], &time(5)));
        // With an origin, a top transaction and a long list of relations.
        let mut long = time(6).to_vec();
        long.resize(30_000, 1);
        let far = log.record(&record(1, 0x20, 8, &[253, 0, 0, 252, 1, 0, 0, 0], &long));
        let named = log.record(&point(7, "before the upgrade"));
        let prepared = log.record(&record(1, 0x30, 0, &[], &time(8)));
        log.record(&record(1, 0x10, 9, &[], &time(9)));
        let mut moments = Moments::default();
        moments.read(Lsn(0x100_0000), &log.padded());
        let end = |xid, committed| What::End { xid, committed };
        let wanted = vec![
            (commit.0, 5, end(7, true)),
            (far.0, 6, end(8, false)),
            (named.0, 7, What::RestorePoint("before the upgrade".to_owned())),
            (prepared.0, 8, end(0, true)),
        ];
        assert_eq!(shown(moments.take()), wanted);
    }

    #[test]
    fn a_record_over_the_edge_of_what_is_read_is_joined() {
        for filler in 8000..8200 {
            let mut log = Log::new(0x100_0000);
            log.record(&record(10, 0, 7, &[], &vec![1; filler]));
            let at = log.record(&point(7, "edge"));
            let bytes = log.padded();
            let wanted = vec![(at.0, 7, What::RestorePoint("edge".to_owned()))];
            let mut moments = Moments::default();
            moments.read(Lsn(0x100_0000), &bytes[..PAGE]);
            moments.read(Lsn(0x100_0000) + PAGE as u64, &bytes[PAGE..]);
            assert_eq!(shown(moments.take()), wanted, "{filler}");
            // The second half alone has it only if it begins there.
            moments.read(Lsn(0x100_0000) + PAGE as u64, &bytes[PAGE..]);
            let begins_there = at.0 >= 0x100_0000 + PAGE as u64;
            assert_eq!(moments.take().len(), usize::from(begins_there), "{filler}");
        }
    }

    #[test]
    fn what_is_not_the_log_ends_it() {
        let mut log = Log::new(0x100_0000);
        log.record(&record(1, 0, 7, &[], &time(5)));
        let mut bytes = log.padded();
        let mut recycled = Log::new(0x900_0000);
        recycled.record(&record(1, 0, 8, &[], &time(6)));
        bytes.extend(recycled.padded());
        let mut moments = Moments::default();
        moments.read(Lsn(0x100_0000), &bytes);
        assert_eq!(moments.take().len(), 1);
        for cut in 0..bytes.len() {
            moments.read(Lsn(0x100_0000), &bytes[..cut]);
        }
        moments.read(Lsn(0), &[0xD1; 3 * PAGE]);
        moments.read(Lsn(0), &[]);
    }
}
