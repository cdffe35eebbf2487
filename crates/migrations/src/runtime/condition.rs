//! Under which conditions a statement runs: what Python, or a block, asks the database beforehand.

use super::object::Object;

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The catalogue, or a table, has what is asked for.
    Has(Question),
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Known(bool),
    /// What no reading decides, as it is written.
    Opaque(String),
}

/// A question to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// An expression that is true where there is what is asked for.
    pub sql: String,
    /// What that is, if it is one object and nothing more.
    pub asked: Option<Asked>,
}

/// One object that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Without schemas: these are in `scope`.
    pub object: Object,
    pub scope: Scope,
    pub by: By,
}

/// Where an object is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// In every schema.
    Anywhere,
    /// Along the search path.
    Path,
    /// In the schema where objects are made.
    Current,
    Schema(String),
    /// It belongs to no schema.
    Global,
}

/// By what means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// `to_regclass` and its sisters.
    Regclass,
    /// The catalogue itself.
    Catalogue,
    /// `information_schema`: it shows what the role may see.
    InformationSchema,
    /// SQLAlchemy's inspector.
    Inspector,
}

impl Condition {
    /// The contrary.
    pub fn not(self) -> Condition {
        match self {
            Condition::Not(inner) => *inner,
            Condition::Known(known) => Condition::Known(!known),
            Condition::All(parts) => Condition::any(parts.into_iter().map(Condition::not).collect()),
            Condition::Any(parts) => Condition::all(parts.into_iter().map(Condition::not).collect()),
            other => Condition::Not(Box::new(other)),
        }
    }

    /// All of them.
    pub fn all(conditions: Vec<Condition>) -> Condition {
        Condition::joined(conditions, false)
    }

    /// Any of them.
    pub fn any(conditions: Vec<Condition>) -> Condition {
        Condition::joined(conditions, true)
    }

    /// `decides` is what one of them must be to decide for all.
    fn joined(conditions: Vec<Condition>, decides: bool) -> Condition {
        let mut kept = Vec::new();
        for condition in conditions {
            match condition {
                Condition::Known(known) if known == decides => return Condition::Known(decides),
                Condition::Known(_) => {}
                other => kept.push(other),
            }
        }
        match (kept.len(), decides) {
            (0, _) => Condition::Known(!decides),
            (1, _) => kept.swap_remove(0),
            (_, false) => Condition::All(kept),
            (_, true) => Condition::Any(kept),
        }
    }

    /// The conditions that must all hold, each for itself.
    pub fn parts(&self) -> Vec<&Condition> {
        match self {
            Condition::All(parts) => parts.iter().flat_map(Condition::parts).collect(),
            Condition::Known(true) => Vec::new(),
            other => vec![other],
        }
    }

    /// The expression that the server evaluates; none where part of it is known to Python only.
    pub fn sql(&self) -> Option<String> {
        let joined = |parts: &[Condition], word: &str| {
            let parts: Option<Vec<String>> = parts.iter().map(Condition::sql).collect();
            Some(format!("({})", parts?.join(word)))
        };
        match self {
            Condition::Has(question) => Some(question.sql.clone()),
            Condition::Not(inner) => Some(format!("NOT ({})", inner.sql()?)),
            Condition::All(parts) => joined(parts, " AND "),
            Condition::Any(parts) => joined(parts, " OR "),
            Condition::Known(known) => Some(known.to_string()),
            Condition::Opaque(_) => None,
        }
    }

    /// What of it no reading decides.
    pub fn opaque(&self) -> Option<&str> {
        match self {
            Condition::Opaque(written) => Some(written),
            Condition::Not(inner) => inner.opaque(),
            Condition::All(parts) | Condition::Any(parts) => parts.iter().find_map(Condition::opaque),
            Condition::Has(_) | Condition::Known(_) => None,
        }
    }

    /// The question, and whether it must be answered with yes.
    pub fn question(&self) -> Option<(&Question, bool)> {
        match self {
            Condition::Has(question) => Some((question, true)),
            Condition::Not(inner) => match &**inner {
                Condition::Has(question) => Some((question, false)),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(sql: &str) -> Condition {
        Condition::Has(Question { sql: sql.to_owned(), asked: None })
    }

    #[test]
    fn what_is_known_decides_or_says_nothing() {
        let (a, b) = (has("a"), Condition::Opaque("b".to_owned()));
        assert_eq!(Condition::all(vec![a.clone(), Condition::Known(true)]), a);
        assert_eq!(Condition::all(vec![a.clone(), Condition::Known(false)]), Condition::Known(false));
        assert_eq!(Condition::any(vec![b.clone(), Condition::Known(true)]), Condition::Known(true));
        assert_eq!(Condition::any(Vec::new()), Condition::Known(false));
        assert_eq!(a.clone().not().not(), a);
        let both = Condition::all(vec![a.clone().not(), b]);
        assert_eq!(both.parts().len(), 2);
        assert_eq!((both.sql(), both.opaque()), (None, Some("b")));
        assert_eq!(Condition::any(vec![a.clone().not(), a]).sql().as_deref(), Some("(NOT (a) OR a)"));
    }
}
