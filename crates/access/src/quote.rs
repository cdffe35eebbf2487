//! Names as they stand in SQL and in the strategy file.

pub(crate) use obyra_postgres::quote::{ident, literal, qualified};

/// Splits `a, "B, c"` into its names; `None` when a quote is left open or a name is empty.
pub(crate) fn split_list(text: &str) -> Option<Vec<String>> {
    split_on(text, ',')
}

/// Splits `app."Odd.Name"` into its parts.
pub(crate) fn split_path(text: &str) -> Option<Vec<String>> {
    split_on(text, '.')
}

fn split_on(text: &str, separator: char) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut name = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next()? {
                    '"' if chars.next_if_eq(&'"').is_some() => name.push('"'),
                    '"' => break,
                    c => name.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != separator && *c != '"') {
                name.push(c);
            }
            name.truncate(name.trim_end().len());
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if name.is_empty() {
            return None;
        }
        names.push(name);
        match chars.next() {
            None => return Some(names),
            Some(c) if c == separator => {}
            Some(_) => return None,
        }
    }
}

/// A name as it is written in a pattern or list of the strategy: quoted only where needed.
pub(crate) fn written(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'));
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_paths() {
        assert_eq!(split_list("a, \"B, c\" ,d").unwrap(), ["a", "B, c", "d"]);
        assert_eq!(split_path("app.\"Odd.\"\"Name\"").unwrap(), ["app", "Odd.\"Name"]);
        assert_eq!(split_list("a,,b"), None);
        assert_eq!(split_list("\"a"), None);
        assert_eq!(written("order"), "order");
        assert_eq!(written("a.b"), "\"a.b\"");
    }
}
