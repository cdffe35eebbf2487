//! libpq's `key=value` form: `host=db.example dbname='my db' password=it\'s`.

use std::iter::Peekable;
use std::str::Chars;

use obyra_evidence::{Failure, text};

use super::parameters::{Pairs, Parameter};
use crate::Result;

/// The parameters of a `key=value` text.
pub(super) fn pairs(text: &str) -> Result<Pairs> {
    if text.is_empty() {
        return Err(Failure::usage(text::postgres::EMPTY));
    }
    let mut pairs = Pairs::default();
    let mut chars = text.chars().peekable();
    let mut after_password = false;
    loop {
        skip_spaces(&mut chars);
        if chars.peek().is_none() {
            return Ok(pairs);
        }
        let name = read_name(&mut chars);
        skip_spaces(&mut chars);
        if chars.next() != Some('=') {
            return Err(malformed(after_password));
        }
        let parameter = Parameter::named(&name)
            // `password=my secret=1` would otherwise name the second half of the password.
            .map_err(|failure| if after_password { malformed(true) } else { failure })?;
        skip_spaces(&mut chars);
        let value = read_value(&mut chars)?;
        after_password = parameter == Parameter::Password;
        pairs.set(parameter, value);
    }
}

fn malformed(after_password: bool) -> Failure {
    let failure = Failure::usage(text::postgres::MALFORMED);
    if after_password { failure.mended_by(text::postgres::MEND_QUOTE) } else { failure }
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
}

fn read_name(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(c) = chars.next_if(|&c| c != '=' && !c.is_whitespace()) {
        name.push(c);
    }
    name
}

fn read_value(chars: &mut Peekable<Chars<'_>>) -> Result<String> {
    let quoted = chars.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match chars.peek() {
            None if quoted => return Err(Failure::usage(text::postgres::UNCLOSED_QUOTE)),
            None => break,
            Some('\'') if quoted => {
                chars.next();
                break;
            }
            Some(c) if !quoted && c.is_whitespace() => break,
            Some(_) => {}
        }
        match chars.next() {
            // A backslash takes the next character as it is; at the end it stands for nothing.
            Some('\\') => value.extend(chars.next()),
            Some('\0') => return Err(malformed(false)),
            Some(c) => value.push(c),
            None => break,
        }
    }
    Ok(value)
}
