//! The values of the section that may be written in more than one way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The value of a setting; numbers and booleans are kept as PostgreSQL writes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Setting(pub String);

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;
        impl Visitor<'_> for AnyScalar {
            type Value = Setting;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Setting, E> {
                Ok(Setting(v.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, v: bool) -> Result<Setting, E> {
                Ok(Setting(if v { "on" } else { "off" }.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Setting, E> {
                Ok(Setting(v.to_string()))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Setting, E> {
                Ok(Setting(v.to_string()))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Setting, E> {
                Ok(Setting(v.to_string()))
            }
        }
        deserializer.deserialize_any(AnyScalar)
    }
}

impl JsonSchema for Setting {
    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean"],
            "description": "The value of a setting, for example \"60s\", 4 or true."
        })
    }
}

/// Whether a role's levels hold for objects that are created later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Future {
    /// The levels of `schemas` hold for new objects too.
    #[default]
    Grant,
    /// New objects stay closed until the next `apply`.
    Deny,
    /// These levels, by schema; a schema that is not named stays closed.
    Levels(BTreeMap<String, String>),
}

impl Future {
    pub(crate) fn is_default(&self) -> bool {
        *self == Future::Grant
    }
}

impl Serialize for Future {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Future::Grant => serializer.serialize_str("grant"),
            Future::Deny => serializer.serialize_str("deny"),
            Future::Levels(levels) => levels.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Future {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrLevels;
        impl<'de> Visitor<'de> for WordOrLevels {
            type Value = Future;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"grant\", \"deny\" or a table of schemas and levels")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Future, E> {
                match v {
                    "grant" => Ok(Future::Grant),
                    "deny" => Ok(Future::Deny),
                    _ => Err(E::unknown_variant(v, &["grant", "deny"])),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Future, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Future::Levels)
            }
        }
        deserializer.deserialize_any(WordOrLevels)
    }
}

impl JsonSchema for Future {
    fn schema_name() -> Cow<'static, str> {
        "Future".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "\"grant\": the levels of `schemas` hold for new objects too. \"deny\": new objects stay closed until the next apply. A table gives other levels by schema.",
            "oneOf": [
                { "enum": ["grant", "deny"] },
                { "type": "object", "additionalProperties": { "type": "string" } }
            ]
        })
    }
}

/// A membership: the role, and what the member may do with it. In the file a role's name
/// alone means `inherit` and `set`, without `admin`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberOf {
    /// The role that it is a member of.
    pub role: String,
    /// May grant the membership on.
    pub admin: bool,
    /// Has the role's privileges without `SET ROLE`.
    pub inherit: bool,
    /// May `SET ROLE` to it.
    pub set: bool,
}

impl MemberOf {
    /// A plain membership: inherits, may set, may not grant on.
    pub fn plain(role: impl Into<String>) -> Self {
        MemberOf { role: role.into(), admin: false, inherit: true, set: true }
    }
}

/// The long form of a membership in the file.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Membership {
    /// The role that it is a member of.
    role: String,
    /// May grant the membership on.
    #[serde(default)]
    admin: bool,
    /// Has the role's privileges without `SET ROLE`.
    #[serde(default = "yes")]
    inherit: bool,
    /// May `SET ROLE` to it.
    #[serde(default = "yes")]
    set: bool,
}

fn yes() -> bool {
    true
}

impl Serialize for MemberOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let MemberOf { role, admin, inherit, set } = self.clone();
        if self == &MemberOf::plain(&*role) {
            return serializer.serialize_str(&role);
        }
        Membership { role, admin, inherit, set }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MemberOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrMembership;
        impl<'de> Visitor<'de> for NameOrMembership {
            type Value = MemberOf;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a role's name, or { role, admin, inherit, set }")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<MemberOf, E> {
                Ok(MemberOf::plain(v))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MemberOf, A::Error> {
                let Membership { role, admin, inherit, set } =
                    Membership::deserialize(MapAccessDeserializer::new(map))?;
                Ok(MemberOf { role, admin, inherit, set })
            }
        }
        deserializer.deserialize_any(NameOrMembership)
    }
}

impl JsonSchema for MemberOf {
    fn schema_name() -> Cow<'static, str> {
        "MemberOf".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<Membership>();
        json_schema!({
            "description": "The name of a role, or a table with the options of the membership.",
            "oneOf": [{ "type": "string" }, long]
        })
    }
}
