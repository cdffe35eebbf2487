//! What a backup must know of the server before it reads a byte.

use obyra_evidence::{Failure, text};
use obyra_postgres::replication::Walsender;
use obyra_postgres::wal::WalSegmentSize;
use obyra_postgres::{ServerVersion, Session, sql_failure};

use crate::Result;
use crate::repository::layout::BLOCK;

/// A cluster, as its server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) version: ServerVersion,
    pub(super) system_identifier: u64,
    pub(super) in_recovery: bool,
    pub(super) shape: Shape,
}

/// How its files are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Whether pages carry checksums.
    pub(super) checksums: bool,
    /// Blocks of a relation's segment.
    pub(super) segment_blocks: u32,
    pub(super) wal_segment: WalSegmentSize,
}

/// The settings that tell.
const SETTINGS: [&str; 4] = ["block_size", "segment_size", "wal_segment_size", "data_checksums"];

impl Server {
    /// Over the replication protocol.
    pub(super) async fn of_walsender(walsender: &mut Walsender) -> Result<Server> {
        let identity = walsender.identify_system().await?;
        let mut shown = Vec::new();
        for name in SETTINGS {
            shown.push(walsender.show(name).await?);
        }
        Ok(Server {
            version: walsender.version(),
            system_identifier: identity.system_identifier,
            in_recovery: walsender.in_recovery(),
            shape: Shape::read(&shown)?,
        })
    }

    /// Over a session.
    pub(super) async fn of_session(session: &Session) -> Result<Server> {
        let failed = |error| sql_failure(text::backup::TAKE_SERVER.message(), &error);
        let mut shown: Vec<String> = Vec::new();
        for name in SETTINGS {
            let row = session.query_one("SELECT current_setting($1)", &[&name]).await.map_err(failed)?;
            shown.push(row.get(0));
        }
        let identifier = "SELECT system_identifier FROM pg_control_system()";
        let identifier: i64 = session.query_one(identifier, &[]).await.map_err(failed)?.get(0);
        Ok(Server {
            version: session.version(),
            system_identifier: identifier.cast_unsigned(),
            in_recovery: session.in_recovery(),
            shape: Shape::read(&shown)?,
        })
    }
}

impl Shape {
    /// Of the settings' values, in their order.
    fn read(shown: &[String]) -> Result<Shape> {
        let [block, segment, wal_segment, checksums] = shown else {
            return Err(Failure::new(text::backup::TAKE_SERVER));
        };
        let odd = || Failure::new(text::backup::TAKE_SERVER).because(shown.join(", "));
        if bytes(block) != Some(BLOCK as u64) {
            return Err(Failure::refused(text::backup::TAKE_BLOCK_SIZE.with("bytes", block)));
        }
        let segment = bytes(segment).and_then(|bytes| u32::try_from(bytes / BLOCK as u64).ok());
        Ok(Shape {
            checksums: checksums == "on",
            segment_blocks: segment.ok_or_else(odd)?,
            wal_segment: WalSegmentSize::new(bytes(wal_segment).ok_or_else(odd)?)?,
        })
    }
}

/// A size as the server shows it: `8192`, `16MB`, `1GB`.
fn bytes(shown: &str) -> Option<u64> {
    let (digits, unit) = shown.split_at(shown.find(|c: char| !c.is_ascii_digit()).unwrap_or(shown.len()));
    let unit = match unit {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_other_blocks_is_refused() {
        let shown = |block: &str, segment: &str| {
            let shown = [block, segment, "16MB", "on"].map(str::to_owned);
            Shape::read(&shown)
        };
        let usual = Shape { checksums: true, segment_blocks: 131_072, wal_segment: WalSegmentSize::DEFAULT };
        assert_eq!(shown("8192", "1GB").unwrap(), usual);
        assert_eq!(shown("8kB", "512kB").unwrap().segment_blocks, 64);
        assert!(shown("16384", "1GB").is_err());
        assert!(shown("8192", "1 GB").is_err());
    }
}
