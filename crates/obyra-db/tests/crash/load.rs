//! A small load whose commits are remembered, with what the archive has acknowledged to the server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use obyra_postgres::wal::Lsn;
use obyra_postgres::{Conninfo, Limits, Session};
use tokio::task::JoinHandle;

/// What is known of it.
#[derive(Default)]
pub struct Known {
    /// Rows whose commit the server acknowledged, each with a position at which it surely had been written.
    committed: Vec<(i64, Lsn)>,
    /// The last number that was tried.
    tried: i64,
    /// The end of what the archive acknowledged: it is durable there.
    acknowledged: Lsn,
}

/// The load while it runs.
pub struct Load {
    known: Arc<Mutex<Known>>,
    tasks: [JoinHandle<()>; 2],
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS load (id int8 PRIMARY KEY, filler text NOT NULL DEFAULT repeat(md5(random()::text), 20))";

impl Load {
    /// Begins it.
    pub async fn begin(database: &Conninfo) -> Load {
        connect(database).await.batch_execute(TABLE).await.unwrap();
        let known = Arc::new(Mutex::new(Known::default()));
        let (writes, reads) = ((database.clone(), known.clone()), (database.clone(), known.clone()));
        let write = tokio::spawn(async move { write(&writes.0, &writes.1).await });
        let read = tokio::spawn(async move { watch(&reads.0, &reads.1).await });
        Load { known, tasks: [write, read] }
    }

    /// Where the archive says that it reaches.
    pub fn acknowledged(&self) -> Lsn {
        self.known.lock().unwrap().acknowledged
    }

    /// The end of what was committed.
    pub fn committed(&self) -> Lsn {
        self.known.lock().unwrap().committed.last().map_or(Lsn::INVALID, |(_, at)| *at)
    }

    /// How many rows the archive has acknowledged.
    pub fn rows(&self) -> usize {
        self.acknowledged_rows().len()
    }

    /// The query that counts the rows that a restore must have, and what it must answer.
    pub fn query(&self) -> (String, String) {
        let rows = self.acknowledged_rows();
        let mut spans: Vec<(i64, i64)> = Vec::new();
        for row in &rows {
            match spans.last_mut() {
                Some((_, end)) if *end == *row => *end += 1,
                _ => spans.push((*row, *row + 1)),
            }
        }
        let spans: Vec<String> = spans.iter().map(|(from, to)| format!("[{from},{to})")).collect();
        let spans = spans.join(",");
        let query = format!("SELECT count(*) FROM load WHERE '{{{spans}}}'::int8multirange @> id");
        (query, rows.len().to_string())
    }

    fn acknowledged_rows(&self) -> Vec<i64> {
        let known = self.known.lock().unwrap();
        let durable = |(_, at): &&(i64, Lsn)| *at <= known.acknowledged;
        known.committed.iter().filter(durable).map(|(row, _)| *row).collect()
    }

    /// Ends it.
    pub fn end(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Panics if either has.
    pub fn is_well(&self) {
        assert!(self.tasks.iter().all(|task| !task.is_finished()), "the load has died");
    }
}

async fn connect(database: &Conninfo) -> Session {
    loop {
        if let Ok(session) = Session::connect(database, Limits::default()).await {
            return session;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Row by row, for ever. A commit that failed may have happened: its number is not used again.
async fn write(database: &Conninfo, known: &Mutex<Known>) {
    loop {
        let session = connect(database).await;
        loop {
            let id = {
                let mut known = known.lock().unwrap();
                known.tried += 1;
                known.tried
            };
            if session.execute("INSERT INTO load (id) VALUES ($1)", &[&id]).await.is_err() {
                break;
            }
            let position = session.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await;
            let Ok(position) = position else { break };
            let position: Lsn = position.get::<_, &str>(0).parse().unwrap();
            known.lock().unwrap().committed.push((id, position));
            // Now and then something larger, and the end of a segment.
            let more = match id % 400 {
                100 => "UPDATE load SET filler = reverse(filler)",
                200 => "SELECT pg_switch_wal()",
                300 => "VACUUM load",
                _ => "SELECT",
            };
            if session.batch_execute(more).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What the server was told to be durable in the archive.
async fn watch(database: &Conninfo, known: &Mutex<Known>) {
    let asked = "SELECT max(flush_lsn)::text FROM pg_stat_replication WHERE application_name = 'obyra_db'";
    loop {
        let session = connect(database).await;
        while let Ok(row) = session.query_one(asked, &[]).await {
            if let Some(position) = row.get::<_, Option<&str>>(0) {
                let position: Lsn = position.parse().unwrap();
                let mut known = known.lock().unwrap();
                known.acknowledged = known.acknowledged.max(position);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
