//! A server as a source of WAL: who it is, what its settings say, its slot, and where to go on with it.

use obyra_evidence::{Failure, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{SlotReading, SystemIdentity, Walsender};
use obyra_postgres::wal::{SegmentName, TimelineHistory, TimelineId, WalSegmentSize};

use super::super::archive::Archive;
use super::super::event::ArchiveEvent;
use super::super::resume::Resume;
use super::{Tell, settings};
use crate::Result;
use crate::repository::layout::ClusterId;

/// An open connection to a server of the archive's cluster.
pub struct Source {
    /// The connection.
    pub walsender: Walsender,
    /// Who it is, and how far it has come.
    pub identity: SystemIdentity,
    /// How large its segments are.
    pub size: WalSegmentSize,
    /// The history of its timeline.
    pub history: TimelineHistory,
}

impl Source {
    /// Connects, and refuses a server of another cluster. The histories of its timelines go into the
    /// archive.
    pub async fn open(target: &Conninfo, archive: &Archive) -> Result<Source> {
        let mut walsender = Walsender::connect(target).await?;
        let identity = walsender.identify_system().await?;
        let found = ClusterId(identity.system_identifier);
        if found != archive.cluster() {
            let what = text::backup::WAL_SERVER_OF_OTHER_CLUSTER.with("server", target.host_summary());
            return Err(Failure::refused(what.with("found", found).with("cluster", archive.cluster()))
                .mended_by(text::backup::WAL_OTHER_CLUSTER_MEND));
        }
        let shown = walsender.show("wal_segment_size").await?;
        let size = WalSegmentSize::new(settings::bytes(&shown).unwrap_or_default())?;
        let mut source = Source {
            walsender,
            identity,
            size,
            history: TimelineHistory::without_parents(identity.timeline),
        };
        if identity.timeline != TimelineId::FIRST {
            source.history = source.archive_history(archive, identity.timeline).await?;
        }
        Ok(source)
    }

    /// Puts the history file of a timeline into the archive.
    pub async fn archive_history(
        &mut self,
        archive: &Archive,
        timeline: TimelineId,
    ) -> Result<TimelineHistory> {
        let file = self.walsender.timeline_history(timeline).await?;
        let history = file.parse()?;
        archive.put_history(timeline, file.content).await?;
        Ok(history)
    }

    /// Makes sure that the slot exists and keeps WAL.
    pub async fn ensure_slot(&mut self, slot: &str, tell: &Tell) -> Result<()> {
        match self.walsender.read_slot(slot).await? {
            SlotReading::Physical { restart: Some(_), .. } => return Ok(()),
            SlotReading::Physical { restart: None, .. } => return self.renew_slot(slot, tell).await,
            SlotReading::Absent | SlotReading::Unsupported => {}
        }
        match self.walsender.create_physical_slot(slot, true, false).await {
            Ok(()) => tell(ArchiveEvent::SlotCreated { slot: slot.to_owned() }),
            Err(failure) if failure.what.code() == text::replication::SLOT_EXISTS => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Makes the slot anew, which the server has given up.
    pub async fn renew_slot(&mut self, slot: &str, tell: &Tell) -> Result<()> {
        self.walsender.drop_slot(slot).await?;
        self.walsender.create_physical_slot(slot, true, false).await?;
        tell(ArchiveEvent::SlotLost { slot: slot.to_owned() });
        Ok(())
    }

    /// Where to begin when the archive holds nothing of this server: where its slot does.
    pub async fn beginning(&mut self, slot: &str) -> Result<Resume> {
        let at = match self.walsender.read_slot(slot).await? {
            SlotReading::Physical { restart: Some(restart), .. } => restart,
            _ => self.identity.position,
        };
        let segment = SegmentName::containing(at, self.history.timeline_at(at), self.size);
        Ok(Resume { segment, archived: segment.start(self.size) })
    }
}

/// Whether commits on the server wait for a receiver of this connection's name.
pub async fn is_synchronous(walsender: &mut Walsender, target: &Conninfo) -> Result<bool> {
    let names = walsender.show("synchronous_standby_names").await?;
    Ok(target.application_name().is_some_and(|name| settings::waits_for(&names, name)))
}
