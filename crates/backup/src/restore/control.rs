//! `global/pg_control`: which cluster it is, and the settings that a server must not go below while it
//! replays this cluster's WAL.
//!
//! The layout is `ControlFileData` (src/include/catalog/pg_control.h) of versions 1300 (PostgreSQL 13 to 16), 1700
//! and 1800, on 64-bit little-endian machines; they agree in what is read here.

use obyra_postgres::wal::Lsn;

/// Where it is in the data directory.
pub(crate) const PATH: &str = "global/pg_control";

const VERSIONS: [u32; 3] = [1300, 1700, 1800];
/// A number that every machine of one floating-point format writes alike.
const FLOAT: f64 = 1_234_567.0;

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The cluster's system identifier.
    pub system_identifier: u64,
    /// Where the last checkpoint's replay begins.
    pub redo: Lsn,
    /// `max_connections`, `max_worker_processes`, `max_wal_senders`, `max_prepared_transactions` and
    /// `max_locks_per_transaction`, as the server had them.
    pub at_least: Vec<(&'static str, u32)>,
}

impl Control {
    /// Reads it; `None` if this is no such file, or of a machine or version that is not known.
    pub fn parse(bytes: &[u8]) -> Option<Control> {
        let u32_at = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let u64_at = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let float = f64::from_bits(u64_at(208)?);
        if !VERSIONS.contains(&u32_at(8)?) || float.to_bits() != FLOAT.to_bits() {
            return None;
        }
        let at_least = [
            ("max_connections", 180),
            ("max_worker_processes", 184),
            ("max_wal_senders", 188),
            ("max_prepared_transactions", 192),
            ("max_locks_per_transaction", 196),
        ];
        let at_least = at_least.into_iter().map(|(name, at)| Some((name, u32_at(at)?)));
        Some(Control {
            system_identifier: u64_at(0)?,
            redo: Lsn(u64_at(40)?),
            at_least: at_least.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_control_file_is_not_read() {
        assert_eq!(Control::parse(&[]), None);
        assert_eq!(Control::parse(&[0; 8192]), None);
        let mut bytes = vec![0; 8192];
        bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
        bytes[208..216].copy_from_slice(&FLOAT.to_bits().to_le_bytes());
        assert!(Control::parse(&bytes).is_some());
        assert_eq!(Control::parse(&bytes[..198]), None);
    }
}
