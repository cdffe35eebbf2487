//! Sizes for people.

use std::fmt;

/// A size in bytes, shown with two or three digits and a decimal unit: `912 MB`, `3.0 GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanBytes(pub u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut size = self.0 as f64 / 1000.0;
        let mut unit = 0;
        // 999.6 would be shown as 1000.
        while size >= 999.5 && unit + 1 < UNITS.len() {
            size /= 1000.0;
            unit += 1;
        }
        let digits = usize::from(size < 9.95);
        write!(f, "{size:.digits$} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_or_three_digits() {
        let shown = [0, 999, 1_000, 9_949, 9_960, 999_400, 999_600, 912_345_678, 3_000_000_000];
        let shown = shown.map(|bytes| HumanBytes(bytes).to_string());
        assert_eq!(
            shown,
            ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "912 MB", "3.0 GB"]
        );
    }
}
