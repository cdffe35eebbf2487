//! The mark that servers since 15.20 keep for themselves among a column's options. An older pg_dump takes it
//! for an option of the user's and writes it down, and no server takes it back: whoever reads such a dump, or has it
//! restored, asks here.

use std::borrow::Cow;

use obyra_evidence::{Failure, text};

use crate::{Result, Session, sql_failure};

const MARK: &str = "pg_attver=";
const REFUSED: &str = "unrecognized parameter \"pg_attver\"";

/// A statement of a dump without the mark. None if there is nothing else in it.
pub fn without(sql: &str) -> Option<Cow<'_, str>> {
    if !sql.starts_with("ALTER TABLE ") || !sql.contains(MARK) {
        return Some(Cow::Borrowed(sql));
    }
    let Some((head, options)) = sql.rsplit_once(" SET (") else { return Some(Cow::Borrowed(sql)) };
    let options = options.trim_end_matches(')').split(", ").filter(|option| !option.starts_with(MARK));
    let options: Vec<&str> = options.collect();
    (!options.is_empty()).then(|| Cow::Owned(format!("{head} SET ({})", options.join(", "))))
}

/// Whether a server said that it does not take the mark.
pub fn is_refused(said: &str) -> bool {
    said.contains(REFUSED)
}

/// The failure of a program that restored a dump; if the mark is why, with what mends it.
pub fn explained(failure: Failure) -> Failure {
    match failure.why.as_deref().is_some_and(is_refused) {
        true => failure.mended_by(text::cluster::OLDER_RELEASE_MEND),
        false => failure,
    }
}

/// Takes the marks out of a database that is thrown away afterwards, so that any pg_dump can read it. As superuser.
pub async fn remove(throw_away: &Session) -> Result<()> {
    let sql = "UPDATE pg_catalog.pg_attribute
                  SET attoptions = nullif(ARRAY(SELECT o FROM unnest(attoptions) o WHERE o !~ '^pg_attver='), '{}')
                WHERE attoptions::text ~ 'pg_attver='";
    let removed = throw_away.batch_execute(sql).await;
    removed.map_err(|error| sql_failure(text::cluster::MARKS_NOT_REMOVED.message(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_left_as_it_is_but_for_the_mark() {
        let without = |sql: &str| without(sql).map(Cow::into_owned);
        assert_eq!(without("ALTER TABLE ONLY app.t ALTER COLUMN id SET (pg_attver=22158920)"), None);
        let both = "ALTER TABLE ONLY app.t ALTER COLUMN c SET (n_distinct=5, pg_attver=22224048)";
        assert_eq!(
            without(both).as_deref(),
            Some("ALTER TABLE ONLY app.t ALTER COLUMN c SET (n_distinct=5)")
        );
        for other in [
            "ALTER TABLE ONLY app.t ALTER COLUMN c SET (n_distinct=5)",
            "COMMENT ON TABLE app.t IS 'pg_attver=1'",
            "ALTER TABLE app.t ADD CONSTRAINT c CHECK (a <> 'pg_attver=1')",
        ] {
            assert_eq!(without(other).as_deref(), Some(other));
        }
    }

    #[test]
    fn only_a_refused_mark_is_explained() {
        let failure = |why: &str| explained(Failure::new(text::cluster::MARKS_NOT_REMOVED).because(why)).mend;
        assert!(failure("ERROR:  unrecognized parameter \"pg_attver\"").is_some());
        assert!(failure("ERROR:  unrecognized parameter \"other\"").is_none());
    }
}
