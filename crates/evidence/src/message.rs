//! A sentence not yet spoken: a stable code and its fields.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// The language that people are spoken to in. Logs and JSON keys stay English.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Spanish, as spoken in Argentina.
    Es,
}

/// A stable identifier such as `access.public-grant`, with its sentence in each language.
///
/// The constants are made by `build.rs` from `locales/`; see [`text`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code {
    id: &'static str,
    en: &'static str,
    es: &'static str,
}

/// All codes, one module for each file in `locales/en`.
#[allow(missing_docs)]
pub mod text {
    use super::Code;
    include!(concat!(env!("OUT_DIR"), "/text.rs"));
}

impl Code {
    /// The identifier, for machines and documentation.
    pub fn id(self) -> &'static str {
        self.id
    }

    /// Starts a message of this code.
    pub fn message(self) -> Message {
        Message { code: self, fields: BTreeMap::new(), sentences: None }
    }

    /// A message of this code with its first field.
    pub fn with(self, field: &'static str, value: impl fmt::Display) -> Message {
        self.message().with(field, value)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// A code with the values of its fields. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    code: Code,
    fields: BTreeMap<&'static str, String>,
    /// Fields that are sentences themselves, and are said in the language of the whole.
    #[expect(clippy::box_collection, reason = "messages are many, sentences in sentences are few")]
    sentences: Option<Box<BTreeMap<&'static str, Message>>>,
}

impl Message {
    /// Adds a field.
    pub fn with(mut self, field: &'static str, value: impl fmt::Display) -> Self {
        self.fields.insert(field, value.to_string());
        self
    }

    /// Adds a field that is a sentence itself: it is said in the language of the whole.
    pub fn with_sentence(mut self, field: &'static str, sentence: Message) -> Self {
        self.fields.insert(field, sentence.to_string());
        self.sentences.get_or_insert_default().insert(field, sentence);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The fields by name.
    pub fn fields(&self) -> &BTreeMap<&'static str, String> {
        &self.fields
    }

    /// The sentence in a language.
    pub fn say(&self, language: Language) -> String {
        let sentence = match language {
            Language::En => self.code.en,
            Language::Es => self.code.es,
        };
        let Some(sentences) = &self.sentences else { return fill(sentence, &self.fields) };
        let mut fields = self.fields.clone();
        fields.extend(sentences.iter().map(|(field, inner)| (*field, inner.say(language))));
        fill(sentence, &fields)
    }
}

impl From<Code> for Message {
    fn from(code: Code) -> Self {
        code.message()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.say(Language::En))
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("code", self.code.id)?;
        map.serialize_entry("text", &self.to_string())?;
        map.serialize_entry("fields", &self.fields)?;
        map.end()
    }
}

/// Replaces each `{name}` by its field, and each `{name|one|many}` by the word that goes with the
/// number in it: `{count} {count|step|steps}`. A field that was not given stays visible as `{name}`.
fn fill(sentence: &str, fields: &BTreeMap<&'static str, String>) -> String {
    let mut out = String::with_capacity(sentence.len() + 32);
    let mut rest = sentence;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            break;
        };
        let (name, words) = name.split_once('|').map_or((name, None), |(name, words)| (name, Some(words)));
        match fields.get(name) {
            Some(value) => out.push_str(words.and_then(|w| w.split_once('|')).map_or(
                value,
                |(one, many)| {
                    if value == "1" { one } else { many }
                },
            )),
            None => {
                debug_assert!(false, "no field {name} for: {sentence}");
                out.push('{');
                out.push_str(name);
                out.push('}');
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{Language, fill, text};

    #[test]
    fn a_sentence_in_a_sentence_is_said_in_its_language() {
        let inner = text::cli::RUN.with("command", "x");
        let outer = text::cli::FACT_UNREADABLE.message().with_sentence("why", inner);
        assert_eq!(outer.fields()["why"], "x");
        let done = text::runtime::IS_DONE.message();
        let outer = text::cli::FACT_UNREADABLE.message().with_sentence("why", done);
        assert!(outer.say(Language::En).contains("done") && outer.say(Language::Es).contains("hecho"));
    }

    #[test]
    fn a_word_goes_with_its_number() {
        let say = |count: &str| {
            fill(
                "{count} {count|step|steps} of {room}",
                &[("count", count.into()), ("room", "a".into())].into(),
            )
        };
        assert_eq!(say("1"), "1 step of a");
        assert_eq!(say("0"), "0 steps of a");
        assert_eq!(say("21"), "21 steps of a");
    }
}
