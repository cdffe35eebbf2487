//! A set of names as few patterns: `log_*` in place of forty tables.
//!
//! A pattern never matches a name of the same kind and schema outside the set, so that what is
//! written means exactly what is there.

/// Fewer names than this are written one by one where only a pattern in the middle of a word fits.
const WORTH_ANY_PREFIX: usize = 6;

/// Fewer names than this are written one by one where a pattern such as `log_*` fits.
const WORTH_A_WORD: usize = 3;

/// A part of the answer: a glob, or the place of a name in the universe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A glob that matches members only.
    Glob(String),
    /// One name, by its place in the universe.
    Name(usize),
}

/// The names of a universe, sorted both ways.
pub(super) struct Names {
    forward: Sorted,
    backward: Sorted,
}

/// Names in their order. In it, the names with one prefix are neighbours.
struct Sorted {
    names: Vec<String>,
    /// The place in the universe of each.
    origin: Vec<usize>,
    /// The position here of each name of the universe.
    position: Vec<usize>,
}

impl Names {
    pub fn new<'a>(universe: impl Iterator<Item = &'a str> + Clone) -> Names {
        Names {
            forward: Sorted::new(universe.clone().map(str::to_owned)),
            backward: Sorted::new(universe.map(reversed)),
        }
    }

    /// Covers members, given by their places in the universe.
    pub fn cover(&self, members: &[usize]) -> Vec<Part> {
        if members.len() > 1 && members.len() == self.forward.names.len() {
            return vec![Part::Glob("*".to_owned())];
        }
        let forward = self.forward.by_prefix(members);
        if members.len() < WORTH_A_WORD || forward.len() == 1 {
            return forward;
        }
        let backward = self.backward.by_prefix(members);
        if backward.len() >= forward.len() {
            return forward;
        }
        let turn = |part| match part {
            Part::Glob(glob) => Part::Glob(reversed(&glob)),
            name => name,
        };
        backward.into_iter().map(turn).collect()
    }
}

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

impl Sorted {
    fn new(universe: impl Iterator<Item = String>) -> Sorted {
        let mut pairs: Vec<(String, usize)> = universe.enumerate().map(|(at, name)| (name, at)).collect();
        pairs.sort_unstable();
        let mut position = vec![0; pairs.len()];
        for (here, (_, origin)) in pairs.iter().enumerate() {
            position[*origin] = here;
        }
        let (names, origin) = pairs.into_iter().unzip();
        Sorted { names, origin, position }
    }

    /// Cuts each unbroken run of members into the widest prefixes that stay within it.
    fn by_prefix(&self, members: &[usize]) -> Vec<Part> {
        let mut positions: Vec<usize> = members.iter().map(|at| self.position[*at]).collect();
        positions.sort_unstable();
        let mut parts = Vec::new();
        for run in positions.chunk_by(|a, b| a + 1 == *b) {
            let mut at = run[0];
            let end = at + run.len();
            while at < end {
                let (prefix, stop) = self.widest(at, end);
                let worth = if prefix.ends_with('_') { WORTH_A_WORD } else { WORTH_ANY_PREFIX };
                if stop - at >= worth && !prefix.contains('*') {
                    parts.push(Part::Glob(format!("{prefix}*")));
                    at = stop;
                } else {
                    parts.push(Part::Name(self.origin[at]));
                    at += 1;
                }
            }
        }
        parts
    }

    /// The prefix of the name at `at` that matches most names, none of them outside `at..end`.
    /// Where several match the same names, one that ends in `_`, else the longest.
    fn widest(&self, at: usize, end: usize) -> (&str, usize) {
        let name = self.names[at].as_str();
        let before = at.checked_sub(1).map(|before| self.names[before].as_str());
        let stop = |prefix: &str| at + self.names[at..].partition_point(|n| n.starts_with(prefix));
        let fits = |prefix: &str| !before.is_some_and(|n| n.starts_with(prefix)) && stop(prefix) <= end;
        let shortest = name.char_indices().map(|(i, c)| &name[..i + c.len_utf8()]).find(|p| fits(p));
        let Some(shortest) = shortest else { return (name, at + 1) };
        let stop = stop(shortest);
        let last = &self.names[stop - 1];
        let shared = name.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
        let shared = (0..=shared).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        let longest = &name[..shared.max(shortest.len())];
        let word = longest.rfind('_').map(|i| &longest[..=i]).filter(|word| fits(word));
        (word.unwrap_or(longest), stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(universe: &[&str], wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
        let members: Vec<usize> = (0..universe.len()).filter(|at| wanted(universe[*at])).collect();
        let show = |part| match part {
            Part::Glob(glob) => glob,
            Part::Name(at) => universe[at].to_owned(),
        };
        Names::new(universe.iter().copied()).cover(&members).into_iter().map(show).collect()
    }

    #[test]
    fn prefixes_suffixes_and_everything() {
        let names = ["log_a", "log_b", "log_c", "login", "users"];
        assert_eq!(covered(&names, &|n| n.starts_with("log_")), ["log_*"]);
        assert_eq!(covered(&names, &|_| true), ["*"]);
        assert_eq!(covered(&names, &|n| n == "users"), ["users"]);
        let names = ["a_seq", "b_seq", "c", "d_seq", "e"];
        assert_eq!(covered(&names, &|n| n.ends_with("_seq")), ["*_seq"]);
    }

    #[test]
    fn short_runs_are_named_one_by_one() {
        let names = ["t1", "t2", "t3", "x"];
        assert_eq!(covered(&names, &|n| n != "x"), ["t1", "t2", "t3"]);
    }

    #[test]
    fn a_pattern_never_takes_in_a_stranger() {
        let names: Vec<String> = (0..60).map(|n| format!("{}_{n}", ["log", "lot", "é"][n % 3])).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for stranger in 0..names.len() {
            for part in covered(&names, &|n| n.starts_with("lo") && n != names[stranger]) {
                let hits = |n: &&&str| match part.strip_suffix('*') {
                    Some(prefix) => n.starts_with(prefix),
                    None => **n == part,
                };
                let all = names.iter().filter(hits).all(|n| n.starts_with("lo") && *n != names[stranger]);
                assert!(all, "{part} takes in more than it should");
            }
        }
    }
}
