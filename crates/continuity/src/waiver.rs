//! Waivers: a line that may be broken for a while, with a reason and somebody's name.

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use obyra_evidence::{Finding, Message, Severity, text::continuity};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{Fact, Facts, LineId};

/// How long before its end a waiver is mentioned.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Excuses a line of the strategy until a date. Afterwards it no longer counts and is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The line.
    pub line: LineId,
    /// The environment; without it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The last day on which it counts (UTC).
    pub until: Until,
    /// Why the line may be broken until then.
    pub reason: String,
    /// Who decided it.
    pub by: String,
}

impl Waiver {
    /// Whether it is about this line in this environment, expired or not.
    pub fn concerns(&self, line: LineId, environment: &str) -> bool {
        self.line == line && self.environment.as_deref().is_none_or(|only| only == environment)
    }

    /// Whether it still counts.
    pub fn counts(&self, now: Timestamp) -> bool {
        now.to_zoned(TimeZone::UTC).date() <= self.until.0
    }

    /// A message about this waiver with its usual fields.
    pub(crate) fn says(&self, code: obyra_evidence::Code) -> Message {
        code.with("by", &self.by).with("until", self.until)
    }
}

/// What there is to say about the waivers of an environment: those that expired, those that soon
/// will, and those that excuse a line which holds.
pub fn waiver_findings(waivers: &[Waiver], facts: &Facts, now: Timestamp) -> Vec<Finding> {
    waivers
        .iter()
        .filter(|waiver| waiver.concerns(waiver.line, &facts.environment))
        .filter_map(|waiver| finding(waiver, facts, now))
        .collect()
}

fn finding(waiver: &Waiver, facts: &Facts, now: Timestamp) -> Option<Finding> {
    let about = |severity, code| Finding::new(severity, waiver.line.id(), waiver.says(code));
    if !waiver.counts(now) {
        let expired = about(Severity::Warning, continuity::WAIVER_EXPIRED);
        return Some(expired.mended_by(continuity::MEND_WAIVER));
    }
    if matches!(facts.facts.get(&waiver.line), Some(Fact::Holds { .. })) {
        let needless = about(Severity::Note, continuity::WAIVER_NEEDLESS);
        return Some(needless.mended_by(continuity::MEND_WAIVER_NEEDLESS));
    }
    let ends_soon = now.checked_add(SOON).is_ok_and(|later| !waiver.counts(later));
    ends_soon.then(|| about(Severity::Note, continuity::WAIVER_ENDS_SOON).mended_by(continuity::MEND_WAIVER))
}

/// A date, written in the file as `2026-03-31` with or without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Until(pub Date);

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DateVisitor)
    }
}

struct DateVisitor;

impl<'de> de::Visitor<'de> for DateVisitor {
    type Value = Until;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a date such as 2026-03-31")
    }

    fn visit_str<E: de::Error>(self, written: &str) -> Result<Until, E> {
        written.parse().map(Until).map_err(|_| E::invalid_value(de::Unexpected::Str(written), &self))
    }

    /// TOML's own dates arrive as a map that only the toml crate can read.
    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Until, A::Error> {
        let deserializer = de::value::MapAccessDeserializer::new(map);
        self.visit_str(&toml::value::Datetime::deserialize(deserializer)?.to_string())
    }
}

impl JsonSchema for Until {
    fn schema_name() -> Cow<'static, str> {
        Date::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Date::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(until: &str) -> Result<Waiver, toml::de::Error> {
        toml::from_str(&format!("line = \"pitr\"\nuntil = {until}\nreason = \"r\"\nby = \"Ana\""))
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn a_date_is_read_with_and_without_quotes() {
        for written in ["2026-03-31", "\"2026-03-31\""] {
            assert_eq!(read(written).unwrap().until.to_string(), "2026-03-31");
        }
        for written in ["\"soon\"", "\"2026-02-30\"", "7", "2026-03-31T10:00:00Z"] {
            assert!(read(written).is_err(), "{written}");
        }
        let error = read("\"soon\"").unwrap_err().to_string();
        assert!(error.contains("a date such as"), "{error}");
    }

    #[test]
    fn the_last_day_counts_wholly() {
        let waiver = read("2026-03-31").unwrap();
        assert!(waiver.counts(at("2026-03-31T23:59:59Z")));
        assert!(!waiver.counts(at("2026-04-01T00:00:00Z")));
    }

    #[test]
    fn an_environment_narrows_a_waiver() {
        let everywhere = read("2026-03-31").unwrap();
        let staging = Waiver { environment: Some("staging".into()), ..everywhere.clone() };
        assert!(everywhere.concerns(LineId::Pitr, "production"));
        assert!(staging.concerns(LineId::Pitr, "staging"));
        assert!(!staging.concerns(LineId::Pitr, "production"));
        assert!(!staging.concerns(LineId::Tls, "staging"));
    }

    #[test]
    fn expired_ending_and_needless_waivers_are_reported() {
        let waivers = [read("2026-03-31").unwrap()];
        let mut facts = Facts::about("staging");
        let codes = |facts: &Facts, now| -> Vec<&str> {
            waiver_findings(&waivers, facts, at(now)).iter().map(|f| f.message.code().id()).collect()
        };
        assert!(codes(&facts, "2026-01-01T00:00:00Z").is_empty());
        assert_eq!(codes(&facts, "2026-03-20T00:00:00Z"), ["continuity.waiver-ends-soon"]);
        assert_eq!(codes(&facts, "2026-04-01T00:00:00Z"), ["continuity.waiver-expired"]);
        facts.facts.insert(LineId::Pitr, Fact::Holds { evidence: Vec::new() });
        assert_eq!(codes(&facts, "2026-01-01T00:00:00Z"), ["continuity.waiver-needless"]);
    }
}
