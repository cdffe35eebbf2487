//! A receiver that a test can stop, kill and listen to.

use std::sync::{Arc, Mutex};

use obyra_backup::Result;
use obyra_backup::wal::{Archive, ArchiveEvent, ReceiveOptions, receive};
use obyra_postgres::Conninfo;
use obyra_postgres::wal::Lsn;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::server::eventually;

/// The slot, and the name that `synchronous_standby_names` would have.
pub const SLOT: &str = "archive";

pub struct Receiver {
    task: JoinHandle<Result<()>>,
    stop: oneshot::Sender<()>,
    events: Arc<Mutex<Vec<ArchiveEvent>>>,
}

impl Receiver {
    pub fn start(archive: &Archive, target: &Conninfo) -> Receiver {
        let mut options = ReceiveOptions::new(SLOT);
        options.part_every = std::time::Duration::from_millis(200);
        Receiver::start_with(archive, target, options)
    }

    pub fn start_with(archive: &Archive, target: &Conninfo, options: ReceiveOptions) -> Receiver {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = events.clone();
        let (stop, stopped) = oneshot::channel();
        let (archive, target) = (archive.clone(), target.clone());
        let task = tokio::spawn(async move {
            let tell = Arc::new(move |event: ArchiveEvent| heard.lock().unwrap().push(event));
            receive(&archive, &target, &options, tell, async move { drop(stopped.await) }).await
        });
        Receiver { task, stop, events }
    }

    /// Stops it in good order.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// How it ended by itself.
    pub async fn end(self) -> Result<()> {
        self.task.await.unwrap()
    }

    /// Ends it in the middle of whatever it does.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Waits until an event has happened, now or before, and returns what is made of it.
    pub async fn heard<T>(&self, what: &str, of: impl Fn(&ArchiveEvent) -> Option<T>) -> T {
        let heard = async || {
            assert!(!self.task.is_finished(), "it has ended: {:?}", self.all());
            self.events.lock().unwrap().iter().find_map(&of)
        };
        eventually(what, heard).await
    }

    /// Waits until everything up to a position is durable.
    pub async fn has(&self, position: Lsn) {
        self.heard(&format!("{position} is durable"), |event| match event {
            ArchiveEvent::Part { durable, .. } | ArchiveEvent::CaughtUp { at: durable } => {
                (*durable >= position).then_some(())
            }
            ArchiveEvent::Lag(lag) => (lag.durable >= position).then_some(()),
            _ => None,
        })
        .await;
    }

    /// All that was heard.
    pub fn all(&self) -> Vec<ArchiveEvent> {
        self.events.lock().unwrap().clone()
    }
}
