use super::super::condition::Condition;
use super::*;

/// The statements of a body, each with its conditions in SQL and what is caught around it.
fn shown(body: &str) -> Vec<String> {
    let inner = read(body).unwrap_or_else(|| panic!("not understood: {body}"));
    let one = |inner: &Inner| {
        let when = inner.when.iter().map(|(_, condition)| match condition {
            Condition::Opaque(written) => format!("opaque {written}"),
            condition => condition.sql().unwrap_or_default(),
        });
        let when = when.filter(|sql| sql != "true").collect::<Vec<_>>().join(" & ");
        let caught: Vec<String> =
            inner.caught.iter().map(|c| if c.all { "others".to_owned() } else { c.shown() }).collect();
        format!("{} [{when}] [{}]", inner.sql.replace(HOLE, "…"), caught.join("; "))
    };
    inner.iter().map(one).collect()
}

#[test]
fn statements_come_with_their_conditions() {
    let body = "
        DECLARE v boolean := false; name text := 'users';
        BEGIN
          IF to_regclass('a') IS NULL THEN
            CREATE TABLE a (x int);
          ELSIF to_regclass('b') IS NULL THEN
            CREATE TABLE b (x int);
          ELSE
            COMMENT ON TABLE a IS 'x; y';
          END IF;
          SELECT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'mood') INTO v;
          IF NOT v THEN CREATE TYPE mood AS ENUM ('a'); END IF;
          PERFORM 1 FROM pg_indexes WHERE indexname = 'i';
          IF NOT FOUND THEN EXECUTE format('CREATE INDEX i ON %I (%s)', name, 'x'); END IF;
        END";
    assert_eq!(
        shown(body),
        [
            "CREATE TABLE a (x int) [NOT (to_regclass('a') IS NOT NULL)] []",
            "CREATE TABLE b (x int) [to_regclass('a') IS NOT NULL & NOT (to_regclass('b') IS NOT NULL)] []",
            "COMMENT ON TABLE a IS 'x; y' [to_regclass('a') IS NOT NULL & to_regclass('b') IS NOT NULL] []",
            "CREATE TYPE mood AS ENUM ('a') [NOT (EXISTS (SELECT 1 FROM pg_type WHERE typname = 'mood'))] []",
            "CREATE INDEX i ON users (x) [NOT (EXISTS (SELECT 1 FROM pg_indexes WHERE indexname = 'i'))] []",
        ]
    );
}

#[test]
fn handlers_are_around_what_stands_before_them() {
    let body = "BEGIN
        BEGIN
          CREATE TABLE a (x int);
          CREATE INDEX i ON a (x);
        EXCEPTION WHEN duplicate_table OR duplicate_object THEN NULL;
          WHEN SQLSTATE '42P06' THEN RAISE NOTICE 'x';
          WHEN unique_violation THEN RAISE;
        END;
        CREATE TYPE m AS ENUM ('a');
      EXCEPTION WHEN OTHERS THEN RAISE WARNING 'failed';
      END";
    let inner = read(body).unwrap();
    assert_eq!(
        shown(body),
        [
            "CREATE TABLE a (x int) [] [duplicate_table, duplicate_object, 42P06; others]",
            "CREATE INDEX i ON a (x) [] [duplicate_table, duplicate_object, 42P06; others]",
            "CREATE TYPE m AS ENUM ('a') [] [others]",
        ]
    );
    let followed: Vec<bool> = inner.iter().map(|inner| inner.is_followed).collect();
    assert_eq!(followed, [true, true, false]);
}

#[test]
fn an_early_return_guards_what_follows() {
    let body = "BEGIN
        IF to_regclass('a') IS NULL THEN RAISE NOTICE 'none'; RETURN; END IF;
        ALTER TABLE a ADD COLUMN IF NOT EXISTS x int;
      END";
    assert_eq!(
        shown(body),
        ["ALTER TABLE a ADD COLUMN IF NOT EXISTS x int [to_regclass('a') IS NOT NULL] []"]
    );
}

#[test]
fn what_is_computed_is_a_hole_and_loops_run_any_number_of_times() {
    let body = "BEGIN
        FOR r IN SELECT tablename FROM pg_tables LOOP
          EXECUTE 'ALTER TABLE ' || quote_ident(r.tablename) || ' ADD COLUMN IF NOT EXISTS x int';
        END LOOP;
        EXECUTE format('ALTER TABLE %2$I.%1$I ENABLE ROW LEVEL SECURITY', 'users', current_schema());
        WHILE true LOOP PERFORM 1; END LOOP;
        CASE WHEN true THEN DROP TABLE a; ELSE DROP TABLE b; END CASE;
        v := v + 1;
      END";
    assert_eq!(
        shown(body),
        [
            "ALTER TABLE … ADD COLUMN IF NOT EXISTS x int [opaque FOR r IN SELECT tablename FROM pg_tables] []",
            "ALTER TABLE ….users ENABLE ROW LEVEL SECURITY [] []",
            "DROP TABLE a [opaque ] []",
            "DROP TABLE b [opaque ] []",
        ]
    );
}

#[test]
fn a_variable_that_is_set_in_one_branch_is_not_known() {
    let body = "DECLARE v boolean := false;
      BEGIN
        IF to_regclass('a') IS NULL THEN v := true; END IF;
        IF v THEN CREATE TABLE b (x int); END IF;
      END";
    assert_eq!(shown(body), ["CREATE TABLE b (x int) [opaque v] []"]);
}

#[test]
fn what_is_no_block_is_not_understood() {
    for body in ["", "SELECT 1", "BEGIN", "BEGIN IF true THEN END", "BEGIN LOOP END", "DECLARE"] {
        assert!(read(body).is_none(), "{body}");
    }
    let deep = "BEGIN ".repeat(200) + &"END; ".repeat(200);
    assert!(read(&deep).is_none());
}
