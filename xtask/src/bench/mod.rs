//! Benchmarks: each runs the best peer beside the program, on the same data, in the same run.

pub mod access;
pub mod backup;
pub mod crash;
pub mod gate;
pub mod peers;
pub mod scan;

use std::time::Duration;

/// The middle of some durations: one slow run on a shared machine must not decide.
pub fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

/// A duration as milliseconds with one digit.
pub fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
