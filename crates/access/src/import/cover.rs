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
    /// A glob that matches members only, and how many.
    Glob(String, usize),
    /// One name, by its place in the universe.
    Name(usize),
}

/// Covers the members of a universe of names. Both lists run in the same order.
pub(super) fn cover(universe: &[&str], member: &[bool]) -> Vec<Part> {
    let members = member.iter().filter(|m| **m).count();
    if members == universe.len() && members > 1 {
        return vec![Part::Glob("*".to_owned(), members)];
    }
    let forward = by_prefix(universe, member);
    if members < WORTH_A_WORD || forward.len() == 1 {
        return forward;
    }
    let reversed: Vec<String> = universe.iter().map(|name| name.chars().rev().collect()).collect();
    let reversed: Vec<&str> = reversed.iter().map(String::as_str).collect();
    let backward = by_prefix(&reversed, member);
    if backward.len() >= forward.len() {
        return forward;
    }
    let turn = |part| match part {
        Part::Glob(glob, count) => Part::Glob(glob.chars().rev().collect(), count),
        name => name,
    };
    backward.into_iter().map(turn).collect()
}

/// Covers the members by names and by globs of the form `prefix*`.
///
/// In sorted order the names with one prefix are neighbours. So each unbroken run of members is
/// cut into the widest prefixes that stay within it.
fn by_prefix(universe: &[&str], member: &[bool]) -> Vec<Part> {
    let mut order: Vec<usize> = (0..universe.len()).collect();
    order.sort_unstable_by_key(|at| universe[*at]);
    let sorted: Vec<&str> = order.iter().map(|at| universe[*at]).collect();
    let mut parts = Vec::new();
    let mut at = 0;
    while at < sorted.len() {
        if !member[order[at]] {
            at += 1;
            continue;
        }
        let mut end = at;
        while end < sorted.len() && member[order[end]] {
            end += 1;
        }
        while at < end {
            let (prefix, stop) = widest(&sorted, at, end);
            let worth = if prefix.ends_with('_') { WORTH_A_WORD } else { WORTH_ANY_PREFIX };
            if stop - at >= worth && !prefix.contains('*') {
                parts.push(Part::Glob(format!("{prefix}*"), stop - at));
                at = stop;
            } else {
                parts.push(Part::Name(order[at]));
                at += 1;
            }
        }
    }
    parts
}

/// The prefix of the name at `at` that matches most names, none of them outside `at..end`.
/// Where several match the same names, one that ends in `_`, else the longest.
fn widest<'a>(sorted: &[&'a str], at: usize, end: usize) -> (&'a str, usize) {
    let name = sorted[at];
    let range_end = |prefix: &str| at + sorted[at..].partition_point(|n| n.starts_with(prefix));
    let starts_here = |prefix: &str| at == 0 || !sorted[at - 1].starts_with(prefix);
    let fits = |prefix: &str| starts_here(prefix) && range_end(prefix) <= end;
    let shortest = name.char_indices().map(|(i, c)| &name[..i + c.len_utf8()]).find(|p| fits(p));
    let Some(shortest) = shortest else { return (name, at + 1) };
    let stop = range_end(shortest);
    let last = sorted[stop - 1];
    let shared = name.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    let shared = (0..=shared).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
    let longest = &name[..shared.max(shortest.len())];
    let word = longest.rfind('_').map(|i| &longest[..=i]).filter(|w| fits(w));
    (word.unwrap_or(longest), stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(universe: &[&str], wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
        let member: Vec<bool> = universe.iter().map(|name| wanted(name)).collect();
        let show = |part| match part {
            Part::Glob(glob, _) => glob,
            Part::Name(at) => universe[at].to_owned(),
        };
        cover(universe, &member).into_iter().map(show).collect()
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
