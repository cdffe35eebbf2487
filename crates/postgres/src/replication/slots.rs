//! Physical replication slots: what keeps WAL on the server until a receiver has it
//! (<https://www.postgresql.org/docs/current/warm-standby.html#STREAMING-REPLICATION-SLOTS>).

use obyra_evidence::text::replication as say;

use super::refusal::Subject;
use super::walsender::{Walsender, quoted_name};
use crate::Result;
use crate::wal::{Lsn, TimelineId};

/// What a server tells of a slot (`READ_REPLICATION_SLOT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotReading {
    /// The server is older than 15 and cannot be asked here; `pg_replication_slots` knows.
    Unsupported,
    /// There is no slot of that name.
    Absent,
    /// There is one.
    Physical {
        /// The oldest position whose WAL it keeps; `None` if it keeps nothing yet.
        restart: Option<Lsn>,
        /// The timeline of that position.
        timeline: Option<TimelineId>,
    },
}

impl Walsender {
    /// Creates a physical slot. With `reserve_wal` it keeps WAL from this moment on, not only from
    /// its first use; a temporary one is gone with the connection.
    pub async fn create_physical_slot(
        &mut self,
        name: &str,
        reserve_wal: bool,
        temporary: bool,
    ) -> Result<()> {
        let temporary = if temporary { " TEMPORARY" } else { "" };
        let reserve_wal = match (reserve_wal, self.version().at_least(15)) {
            (false, _) => "",
            (true, true) => " (RESERVE_WAL)",
            (true, false) => " RESERVE_WAL",
        };
        let command =
            format!("CREATE_REPLICATION_SLOT {}{temporary} PHYSICAL{reserve_wal}", quoted_name(name));
        self.ask_one(&command, say::CREATE_SLOT.with("slot", name), Subject::Slot(name.to_owned())).await?;
        Ok(())
    }

    /// Drops a slot that nobody uses.
    pub async fn drop_slot(&mut self, name: &str) -> Result<()> {
        let command = format!("DROP_REPLICATION_SLOT {}", quoted_name(name));
        self.ask_one(&command, say::DROP_SLOT.with("slot", name), Subject::Slot(name.to_owned())).await?;
        Ok(())
    }

    /// What a slot keeps.
    pub async fn read_slot(&mut self, name: &str) -> Result<SlotReading> {
        if !self.version().at_least(15) {
            return Ok(SlotReading::Unsupported);
        }
        let command = format!("READ_REPLICATION_SLOT {}", quoted_name(name));
        let what = say::READ_SLOT.with("slot", name);
        let row = self.ask_one(&command, what, Subject::Slot(name.to_owned())).await?;
        Ok(match row {
            Some(row) if row.bytes(0).is_some() => {
                SlotReading::Physical { restart: row.parse(1), timeline: row.parse(2).map(TimelineId) }
            }
            _ => SlotReading::Absent,
        })
    }
}
