//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);

/// The longest.
const LONGEST: Duration = Duration::from_secs(10);

/// Twice as long each time, up to a limit.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Backoff {
    /// Nothing has failed yet.
    pub fn new() -> Backoff {
        Backoff(FIRST)
    }

    /// How long to wait now.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        pause
    }
}
