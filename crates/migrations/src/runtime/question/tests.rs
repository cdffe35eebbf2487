use super::super::tokens::tokens;
use super::*;

/// What is asked, as `kind object in scope`; none where nobody but the server knows.
fn asked(question: &Question) -> String {
    let Some(asked) = &question.asked else { return "?".to_owned() };
    let scope = match &asked.scope {
        Scope::Anywhere => "anywhere".to_owned(),
        Scope::Path => "path".to_owned(),
        Scope::Current => "current".to_owned(),
        Scope::Schema(schema) => schema.clone(),
        Scope::Global => "global".to_owned(),
    };
    format!("{:?} {} in {scope}", asked.object.kind, asked.object).to_lowercase()
}

fn shown(condition: &Condition) -> String {
    match condition {
        Condition::Has(question) => asked(question),
        Condition::Not(inner) => format!("not ({})", shown(inner)),
        Condition::All(parts) => parts.iter().map(shown).collect::<Vec<_>>().join(" and "),
        Condition::Any(parts) => parts.iter().map(shown).collect::<Vec<_>>().join(" or "),
        Condition::Known(known) => known.to_string(),
        Condition::Opaque(_) => "opaque".to_owned(),
    }
}

fn expression(sql: &str) -> String {
    shown(&of_expression(sql, &tokens(sql)))
}

#[test]
fn conditions_of_blocks_are_questions_to_the_catalogue() {
    for (sql, expected) in [
        ("to_regclass('app.users') IS NULL", "not (relation users in app)"),
        ("to_regclass('users') IS NOT NULL", "relation users in path"),
        ("pg_catalog.to_regtype('mood') IS NULL", "not (type mood in path)"),
        ("to_regnamespace('app') IS NULL", "not (schema app in global)"),
        ("(SELECT to_regclass('app.users')) IS NULL", "not (relation users in app)"),
        ("'app.users'::regclass IS NOT NULL", "relation users in app"),
        (
            "NOT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_name = 'users')",
            "not (relation users in anywhere)",
        ),
        (
            "EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = 'app' AND table_name = 'users')",
            "relation users in app",
        ),
        (
            "NOT EXISTS (SELECT FROM information_schema.columns WHERE table_name = 'users' AND column_name = 'phone'
               AND table_schema = current_schema())",
            "not (column users.phone in current)",
        ),
        ("NOT EXISTS (SELECT FROM pg_type WHERE typname = 'mood')", "not (type mood in anywhere)"),
        (
            "NOT EXISTS (SELECT 1 FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
               WHERE t.typname = 'mood' AND n.nspname = 'app')",
            "not (type mood in app)",
        ),
        (
            "EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'app.users'::regclass AND attname = 'x' AND NOT attisdropped)",
            "column users.x in app",
        ),
        (
            "EXISTS (SELECT FROM pg_constraint WHERE conname = 'c' AND conrelid = to_regclass('t') AND contype = 'f')",
            "constraint c on t in path",
        ),
        ("EXISTS (SELECT FROM pg_indexes WHERE schemaname = 'app' AND indexname = 'i')", "relation i in app"),
        ("EXISTS (SELECT FROM pg_class WHERE relname = 'users' AND relkind IN ('r', 'p'))", "relation users in anywhere"),
        ("EXISTS (SELECT FROM pg_class c WHERE c.relname = 'users' AND pg_table_is_visible(c.oid))", "relation users in path"),
        ("EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('app.users'))", "relation users in app"),
        (
            "EXISTS (SELECT FROM pg_enum WHERE enumtypid = to_regtype('mood') AND enumlabel = 'x')",
            "label mood.x in path",
        ),
        ("EXISTS (SELECT FROM pg_extension WHERE extname = 'pgcrypto')", "extension pgcrypto in global"),
        ("(SELECT count(*) FROM pg_tables WHERE schemaname = 'app' AND tablename = 'users') = 0", "not (relation users in app)"),
        ("(SELECT count(*) FROM pg_tables WHERE tablename = 'users') > 0", "relation users in anywhere"),
        ("to_regclass('a') IS NULL AND to_regclass('b') IS NOT NULL", "not (relation a in path) and relation b in path"),
        ("NOT (to_regclass('a') IS NULL OR false)", "relation a in path"),
        ("true", "true"),
    ] {
        assert_eq!(expression(sql), expected, "{sql}");
    }
}

#[test]
fn what_narrows_a_question_leaves_it_to_the_server() {
    for (sql, expected) in [
        (
            "NOT EXISTS (SELECT FROM information_schema.columns WHERE column_name = 'a' AND table_name = 't' AND data_type = 'integer')",
            "not (?)",
        ),
        ("EXISTS (SELECT FROM pg_tables WHERE tablename = v_name)", "?"),
        ("EXISTS (SELECT FROM pg_tables WHERE tablename = 'a' OR tablename = 'b')", "?"),
        ("EXISTS (SELECT FROM roles WHERE name = 'admin')", "?"),
        ("EXISTS (SELECT FROM pg_tables WHERE tablename LIKE 'a%')", "?"),
        ("(SELECT count(*) FROM pg_tables WHERE tablename IN ('a', 'b')) = 2", "opaque"),
        ("v_flag", "opaque"),
        ("current_setting('x') = 'y'", "opaque"),
        ("to_regclass('\u{e000}') IS NULL", "opaque"),
        ("", "opaque"),
    ] {
        assert_eq!(expression(sql), expected, "{sql}");
    }
}

#[test]
fn queries_tell_by_a_row_a_count_a_value_or_names() {
    let reply = |sql: &str| match of_query(sql, &tokens(sql)) {
        None => "none".to_owned(),
        Some(Reply::Row(question)) => format!("row: {}", asked(&question)),
        Some(Reply::Count(question)) => format!("count: {}", asked(&question)),
        Some(Reply::Value(question)) => format!("value: {}", asked(&question)),
        Some(Reply::Truth(condition)) => format!("truth: {}", shown(&condition)),
        Some(Reply::Names(names)) => format!("names: {}", shown(&names.has("x"))),
    };
    for (sql, expected) in [
        ("SELECT to_regclass('app.users')::text", "value: relation users in app"),
        ("SELECT to_regclass('app.users') IS NOT NULL AS there", "truth: relation users in app"),
        ("SELECT EXISTS (SELECT 1 FROM pg_tables WHERE tablename = 't')", "truth: relation t in anywhere"),
        ("SELECT 1 FROM pg_tables WHERE tablename = 't' LIMIT 1", "row: relation t in anywhere"),
        ("SELECT COUNT(*) FROM pg_tables WHERE tablename = 't'", "count: relation t in anywhere"),
        (
            "SELECT column_name FROM information_schema.columns WHERE table_name = 't' ORDER BY 1",
            "names: column t.x in anywhere",
        ),
        (
            "SELECT column_name FROM information_schema.columns WHERE table_name = 't' AND column_name = 'a'",
            "row: column t.a in anywhere",
        ),
        ("SELECT version()", "none"),
        ("INSERT INTO t VALUES (1)", "none"),
    ] {
        assert_eq!(reply(sql), expected, "{sql}");
    }
}
