//! The `[anonymize]` section: strategy, section 8, point 4.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How data of another environment is made safe before it arrives in this one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Anonymize")]
pub struct Policy {
    /// The environment that the data comes from. It is only read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What happens with a column that `columns` does not name.
    pub unclassified: Unclassified,
    /// The rule for each column, as `schema.table.column` with the logical schema name.
    pub columns: BTreeMap<String, Mask>,
}

/// What happens with a column that nobody classified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unclassified {
    /// The copy is refused before a row is read.
    #[default]
    Refuse,
    /// Its values are replaced by NULL, or by an empty value of its type.
    Empty,
}

/// What a column's values become. Equal values stay equal within a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// Unchanged: the column holds nothing personal.
    Keep,
    /// NULL, or an empty value where NULL is not allowed.
    Empty,
    /// A made-up address under `.test`.
    Email,
    /// A made-up personal name.
    Name,
    /// A made-up company name.
    Company,
    /// A made-up telephone number of the same shape.
    Phone,
    /// A made-up postal address.
    Address,
    /// A made-up DNI of the same length.
    Dni,
    /// A made-up CUIT or CUIL with a valid check digit.
    Cuit,
    /// A made-up bank account number (CBU) of the same shape.
    BankAccount,
    /// Invented text of about the same length.
    Text,
    /// The same date shifted by days that are constant for each person.
    DateShift,
    /// An amount within ten percent of the real one.
    Amount,
    /// A hash that no password matches.
    Credential,
    /// A fresh random token.
    Token,
}
