//! For how long the archive has been behind the server: pure, with durations since a common beginning.

use std::collections::VecDeque;
use std::time::Duration;

use obyra_postgres::wal::Lsn;

/// Between two remembered positions; an age is exact to this.
const EVERY: Duration = Duration::from_millis(100);

/// When the server's WAL reached which position, as far as it was told.
#[derive(Debug, Default)]
pub struct Ends(VecDeque<(Lsn, Duration)>);

impl Ends {
    /// The server's WAL ended here at this time.
    pub fn saw(&mut self, end: Lsn, at: Duration) {
        match self.0.back() {
            Some((last, seen)) if end <= *last || at.saturating_sub(*seen) < EVERY => {}
            _ => self.0.push_back((end, at)),
        }
    }

    /// For how long WAL behind `durable` has existed; zero if there is none. Forgets what is durable.
    pub fn age(&mut self, durable: Lsn, now: Duration) -> Duration {
        while self.0.front().is_some_and(|(end, _)| *end <= durable) {
            self.0.pop_front();
        }
        self.0.front().map_or(Duration::ZERO, |(_, seen)| now.saturating_sub(*seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_oldest_wal_that_is_not_durable() {
        let at = Duration::from_millis;
        let mut ends = Ends::default();
        assert_eq!(ends.age(Lsn(0), at(0)), Duration::ZERO);
        for (end, when) in [(100, 0), (100, 500), (200, 1000), (300, 1050), (400, 2000)] {
            ends.saw(Lsn(end), at(when));
        }
        assert_eq!(ends.age(Lsn(99), at(3000)), at(3000));
        assert_eq!(ends.age(Lsn(100), at(3000)), at(2000));
        assert_eq!(ends.age(Lsn(200), at(3000)), at(1000), "300 came too soon after 200 to be remembered");
        assert_eq!(ends.age(Lsn(400), at(9000)), Duration::ZERO);
    }
}
