//! The bandwidth limit: bytes per second over everything that goes in and out of a store.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes take their turn. An object is never delayed in its middle: whoever comes next waits for it.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: NonZeroU64,
    begun: Instant,
    free_at: Mutex<Duration>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: NonZeroU64) -> Pace {
        Pace { bytes_per_second, begun: Instant::now(), free_at: Mutex::default() }
    }

    /// Waits until so many bytes may pass.
    pub(super) async fn pass(&self, bytes: u64) {
        let wait = self.turn(self.begun.elapsed(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait, from now on.
    fn turn(&self, now: Duration, bytes: u64) -> Duration {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = now.max(*free_at);
        *free_at = begin + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        begin - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_waits_for_the_one_before_and_idle_time_is_not_saved() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let at = Duration::from_millis;
        assert_eq!(pace.turn(at(0), 500), at(0));
        assert_eq!(pace.turn(at(0), 1000), at(500));
        assert_eq!(pace.turn(at(1000), 10), at(500));
        assert_eq!(pace.turn(at(9000), 1000), at(0));
        assert_eq!(pace.turn(at(9000), 0), at(1000));
    }
}
