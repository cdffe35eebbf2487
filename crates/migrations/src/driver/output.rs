//! What the application printed while the driver ran it: kept for the case that something fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStderr;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// An application that logs each statement must not fill the memory.
const LINES_KEPT: usize = 200;
const LINE_BYTES_MAX: usize = 2_000;

/// The last lines of the driver's stderr, where the application's stdout goes as well.
#[derive(Debug)]
pub(crate) struct Output {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

impl Output {
    /// Starts to read.
    pub fn of(stderr: ChildStderr) -> Output {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&lines);
        let reader = tokio::spawn(async move {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while matches!(stderr.read_until(b'\n', &mut line).await, Ok(1..)) {
                line.truncate(LINE_BYTES_MAX);
                keep(&kept, String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        Output { lines, reader }
    }

    /// The last lines; waits a moment for what a process that has just ended left in the pipe.
    pub async fn last(&mut self, count: usize) -> String {
        if !self.reader.is_finished() {
            let _ = timeout(Duration::from_millis(200), &mut self.reader).await;
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = lines.len().saturating_sub(count);
        lines.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn keep(lines: &Mutex<VecDeque<String>>, line: String) {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == LINES_KEPT {
        lines.pop_front();
    }
    lines.push_back(line);
}

impl Drop for Output {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
