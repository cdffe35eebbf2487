//! Takes known secrets out of what a server or a tool said, before it is shown or recorded.
//!
//! A known secret may come back as it is, percent-encoded in a URL, behind backslashes in JSON or a
//! connection string, or with doubled quotes in SQL. Each of these readings is searched. Of a
//! password that nobody passed in, only the usual shapes can be recognised.

use std::ops::Range;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// `text` with every occurrence of the secrets replaced by [`MASK`].
///
/// Each line of a secret of several lines (a private key) is a secret of its own, since tools
/// quote single lines. Short secrets are removed as well: a text that suffers from it is the
/// lesser harm.
pub fn scrub(text: &str, secrets: &[&str]) -> String {
    let needles: Vec<&[u8]> =
        secrets.iter().flat_map(|s| parts(s)).filter(|n| !n.is_empty()).map(str::as_bytes).collect();
    let mut found = Vec::new();
    for read in [as_written, percent_decoded, unescaped, undoubled] {
        let reading = read(text.as_bytes());
        for needle in &needles {
            find(&reading, needle, &mut found);
        }
    }
    found.sort_by_key(|range: &Range<usize>| range.start);
    mask(text, &found)
}

/// `text` without what looks like a password: in a URL, in `password=…`, in SQL's `PASSWORD '…'`.
///
/// This is a second net, for text whose secrets are not known: a line of a file, an echoed statement.
pub fn scrub_credentials(text: &str) -> String {
    let mut found: Vec<Range<usize>> = url_passwords(text).chain(named_passwords(text)).collect();
    found.sort_by_key(|range| range.start);
    mask(text, &found)
}

fn url_passwords(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(at, separator)| {
        let start = at + separator.len();
        let rest = &text[start..];
        let token =
            &rest[..rest.find(|c: char| c.is_whitespace() || "\"'<>`".contains(c)).unwrap_or(rest.len())];
        // A careless password may itself hold an @: the last one ends it.
        let end = token.rfind('@')?;
        let colon = token[..end].find(':')?;
        (colon + 1 < end).then(|| start + colon + 1..start + end)
    })
}

fn named_passwords(text: &str) -> impl Iterator<Item = Range<usize>> {
    let lower = text.to_ascii_lowercase();
    let names = ["password", "passwd", "contraseña"];
    let ends: Vec<usize> =
        names.iter().flat_map(|name| lower.match_indices(name).map(|(at, n)| at + n.len())).collect();
    ends.into_iter().filter_map(|end| value_after(text, end))
}

/// The value that a name ending at `end` is given: after `=`, after `:` in JSON, or quoted in SQL.
fn value_after(text: &str, end: usize) -> Option<Range<usize>> {
    let rest = &text[end..];
    let unquoted = rest.strip_prefix(['"', '\'']);
    let spaced = unquoted.unwrap_or(rest).trim_start();
    let value = match spaced.chars().next()? {
        '=' => spaced[1..].trim_start(),
        ':' if unquoted.is_some() => spaced[1..].trim_start(),
        '\'' if spaced.len() < rest.len() => spaced,
        _ => return None,
    };
    let start = text.len() - value.len();
    let length = match value.chars().next()? {
        quote @ ('"' | '\'') => {
            return quoted(value, quote).map(|inner| start + inner.start..start + inner.end);
        }
        _ => value.find(|c: char| c.is_whitespace() || "&,;\"'".contains(c)).unwrap_or(value.len()),
    };
    (length > 0).then(|| start..start + length)
}

/// What stands between the quotes; to the end of the text where the closing one is missing.
fn quoted(value: &str, quote: char) -> Option<Range<usize>> {
    let mut escaped = false;
    let end = value[1..].find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let inner = 1..end.map_or(value.len(), |end| end + 1);
    (!inner.is_empty()).then_some(inner)
}

/// The secret itself, and those of its lines that are long enough to give something away.
fn parts(secret: &str) -> impl Iterator<Item = &str> {
    let lines =
        secret.lines().map(str::trim).filter(move |line| line.len() >= 8 && line.len() < secret.len());
    std::iter::once(secret).chain(lines)
}

/// A byte as it is meant, and where it is written.
struct Byte {
    value: u8,
    at: Range<usize>,
}

fn as_written(text: &[u8]) -> Vec<Byte> {
    read_with(text, |_| None)
}

fn percent_decoded(text: &[u8]) -> Vec<Byte> {
    read_with(text, |rest| match rest {
        [b'%', high, low, ..] => Some((hex(*high)? << 4 | hex(*low)?, 3)),
        _ => None,
    })
}

fn unescaped(text: &[u8]) -> Vec<Byte> {
    read_with(text, |rest| match rest {
        [b'\\', b'n', ..] => Some((b'\n', 2)),
        [b'\\', b'r', ..] => Some((b'\r', 2)),
        [b'\\', b't', ..] => Some((b'\t', 2)),
        [b'\\', b'u', b'0', b'0', high, low, ..] => Some((hex(*high)? << 4 | hex(*low)?, 6)),
        [b'\\', other, ..] => Some((*other, 2)),
        _ => None,
    })
}

fn undoubled(text: &[u8]) -> Vec<Byte> {
    read_with(text, |rest| match rest {
        [quote @ (b'\'' | b'"'), again, ..] if quote == again => Some((*quote, 2)),
        _ => None,
    })
}

fn read_with(text: &[u8], longer: impl Fn(&[u8]) -> Option<(u8, usize)>) -> Vec<Byte> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let (value, length) = longer(&text[at..]).unwrap_or((text[at], 1));
        bytes.push(Byte { value, at: at..at + length });
        at += length;
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn find(reading: &[Byte], needle: &[u8], found: &mut Vec<Range<usize>>) {
    for window in reading.windows(needle.len()) {
        if window.iter().map(|byte| byte.value).eq(needle.iter().copied()) {
            found.push(window[0].at.start..window[window.len() - 1].at.end);
        }
    }
}

/// Replaces the ranges, sorted by their start; those that touch or overlap become one mask.
fn mask(text: &str, found: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut hidden = 0..0;
    for range in found {
        if range.start > hidden.end || hidden.is_empty() {
            out.push_str(&text[hidden.end..range.start]);
            out.push_str(MASK);
        }
        hidden = range.start..hidden.end.max(range.end);
    }
    out.push_str(&text[hidden.end..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_secret_however_it_is_written() {
        let secret = r#"p@ss'w"rd\1 ñ"#;
        for written in [
            secret,
            "p%40ss%27w%22rd%5C1%20%C3%B1",
            "p%40ss'w%22rd%5c1 ñ",
            r#"p@ss'w\"rd\\1 ñ"#,
            r#"p@ss''w"rd\1 ñ"#,
            r#"p@ss'w""rd\1 ñ"#,
        ] {
            let text = format!("before {written} after");
            assert_eq!(scrub(&text, &[secret]), "before *** after", "{written}");
        }
    }

    #[test]
    fn leaves_everything_else() {
        let text = "100 % of \\d and 'it''s' %zz ñandú";
        assert_eq!(scrub(text, &["absent"]), text);
        assert_eq!(scrub(text, &[""]), text);
        assert_eq!(scrub(text, &[]), text);
        assert_eq!(scrub("", &["x"]), "");
    }

    #[test]
    fn overlapping_and_repeated_secrets_leave_nothing() {
        assert_eq!(scrub("abcabcab", &["abcab", "bc"]), "***");
        assert_eq!(scrub("secret secretive", &["secret", "secretive"]), "*** ***");
        assert_eq!(scrub("xsecret", &["secret"]), "x***");
    }

    #[test]
    fn each_line_of_a_key_is_secret() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n";
        assert_eq!(scrub("bad line: MIIEvQIBADANBgkq!", &[key]), "bad line: ***!");
    }

    #[test]
    fn finds_the_usual_shapes_of_a_password() {
        for (text, expected) in [
            ("postgres://u:p@ss@h/db", "postgres://u:***@h/db"),
            ("url = \"postgresql://u:x@h\" # ok", "url = \"postgresql://u:***@h\" # ok"),
            ("host=h password=x dbname=d", "host=h password=*** dbname=d"),
            ("password = 'a \\' b' port=1", "password = '***' port=1"),
            ("PGPASSWORD=x psql", "PGPASSWORD=*** psql"),
            ("{\"password\": \"x\"}", "{\"password\": \"***\"}"),
            ("ALTER ROLE a PASSWORD 'x'", "ALTER ROLE a PASSWORD '***'"),
            ("la contraseña=x", "la contraseña=***"),
            ("?password=x&sslmode=require", "?password=***&sslmode=require"),
        ] {
            assert_eq!(scrub_credentials(text), expected);
        }
    }

    #[test]
    fn prose_about_passwords_stays() {
        for text in [
            "password authentication failed for user \"u\"",
            "wrong password: try again",
            "postgres://u@h:5432/db",
            "https://example.org/a",
            "password",
            "password=",
            "",
        ] {
            assert_eq!(scrub_credentials(text), text);
        }
    }
}
