use super::*;

fn read(toml: &str) -> Policy {
    toml::from_str(toml).unwrap()
}

/// The problems as `path: code`.
fn problems(toml: &str) -> Vec<String> {
    let problems = read(toml).check();
    problems.iter().map(|(path, message)| format!("{}: {}", path.join("."), message.code().id())).collect()
}

const WHOLE: &str = r#"
mode = "adopt"
owner = "own"
extensions = ["pg_stat_statements"]
[roles.app]
login = true
connection_limit = 5
valid_until = "2030-01-01T00:00:00Z"
member_of = ["own", { role = "pg_monitor", admin = true, inherit = false, set = false }]
database = ["CONNECT", "TEMP"]
schemas = { app = "read-write", audit = "mine" }
future = { app = "read" }
search_path = ["app"]
settings = { work_mem = 4096, jit = false, statement_timeout = "60s" }
cluster_settings = { log_statement = "none" }
rotate = "90 days"
[roles.PUBLIC]
schemas = { app = "usage" }
future = "deny"
[profiles.mine]
schema = ["USAGE"]
tables = ["SELECT WITH GRANT OPTION", "MAINTAIN"]
views = []
[schemas.audit]
owner = "auditor"
[objects]
"function app.f(int)" = { app = [], PUBLIC = ["EXECUTE"] }
"table app.*_log" = { app = ["SELECT", "UPDATE (a, b)"] }
[owners]
"table app.x" = "app"
[sensitive]
"app.users" = { app = ["id"] }
[tenancy]
tables = ["app.users"]
force = true
[[default_privileges]]
creators = ["own"]
schemas = ["app"]
on = "tables"
to = ["PUBLIC"]
privileges = ["SELECT"]
[retired.old]
reassign_to = "own"
[settings]
ssl = true
"#;

#[test]
fn a_whole_section_is_read_written_and_read_again() {
    let policy = read(WHOLE);
    assert_eq!(policy.check(), []);
    let app = &policy.roles["app"];
    assert_eq!(app.settings["work_mem"].0, "4096");
    assert_eq!(app.settings["jit"].0, "off");
    assert_eq!(app.member_of[0], MemberOf::plain("own"));
    let written = toml::to_string(&policy).unwrap();
    assert_eq!(read(&written), policy, "{written}");
    assert_eq!(policy.declared().collect::<Vec<_>>(), ["app", "auditor", "own"]);
    assert!(policy.may_login("app") && !policy.may_login("own"));
}

#[test]
fn what_the_types_cannot_say_is_found_at_its_place() {
    let found = problems(
        r#"
owner = "PUBLIC"
[roles.app]
member_of = ["nobody"]
schemas = { app = "reed" }
connection_limit = -2
valid_until = "tomorrow"
rotate = "often"
acts_as = "other"
settings = { role = "x", search_path = "x" }
search_path = ["app"]
database = ["EXECUTE"]
[roles.other]
member_of = ["app"]
[roles.pg_mine]
[roles.PUBLIC]
createdb = true
[profiles.read]
tables = ["USAGE"]
[objects]
"index app.x" = {}
"table app.x" = { ghost = ["SELECT", "EXECUTE"] }
[sensitive]
"users" = {}
[tenancy]
tables = ["app.*"]
[[default_privileges]]
creators = ["app"]
schemas = ["app"]
on = "schemas"
to = ["app"]
privileges = ["USAGE"]
[retired.app]
"#,
    );
    let expected = [
        "owner: access.public-cannot",
        "roles.PUBLIC: access.public-cannot",
        "roles.app.member_of: access.role-undefined",
        "roles.app.settings.role: access.role-setting-twice",
        "roles.app.settings.search_path: access.search-path-twice",
        "roles.app.schemas.app: access.level-unknown",
        "roles.app.database.0: access.privilege-unknown",
        "roles.app.connection_limit: access.connection-limit-impossible",
        "roles.app.valid_until: access.timestamp-unreadable",
        "roles.app.rotate: access.duration-unreadable",
        "roles.pg_mine: access.role-reserved",
        "roles.app: access.membership-circle",
        "roles.other: access.membership-circle",
        "profiles.read: access.level-builtin",
        "profiles.read.tables.0: access.privilege-unknown",
        "objects.index app.x: access.pattern-unreadable",
        "objects.table app.x.ghost: access.role-undefined",
        "objects.table app.x.ghost.1: access.privilege-unknown",
        "sensitive.users: access.table-unreadable",
        "tenancy.tables.0: access.table-unreadable",
        "default_privileges.0.schemas: access.schemas-in-schema",
        "retired.app: access.retired-declared",
    ];
    assert_eq!(found, expected);
}

#[test]
fn unknown_keys_and_wrong_words_are_refused() {
    for wrong in [
        "modes = 'adopt'",
        "mode = 'strict'",
        "[roles.a]\nfuture = 'maybe'",
        "[roles.a]\nmember_of = [{ role = 'b', sett = true }]",
        "[roles.a]\nsettings = { x = [1] }",
    ] {
        assert!(toml::from_str::<Policy>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_schema_is_published_with_descriptions() {
    let schema = serde_json::to_string(&schemars::schema_for!(Policy)).unwrap();
    for part in ["Who may do what", "act as from login", "\\\"deny\\\"", "Sensitive tables"] {
        assert!(schema.contains(part), "{part}");
    }
}
