//! Common sections below, each environment's own above: tables merge, everything else replaces.

use std::path::Path;

use obyra_continuity::LineId;
use obyra_strategy::{Reach, Stage, Strategy, not_built};

const LAYERED: &str = r#"
[environments.dev]
runs_on = "embedded"
database = "shop_dev"

[environments.staging]
runs_on = "self-hosted"
url_file = "secrets/staging.url"
database = "shop"
schemas = { app = "shop", audit = "audit" }

[environments.staging.access.roles.shop_app]
connection_limit = 5
search_path = ["app", "audit"]

[environments.staging.access.roles.shop_probe]
schemas = { app = "read" }

[access]
owner = "shop_owner"

[access.roles.shop_app]
schemas = { app = "read-write" }
search_path = ["app"]
connection_limit = 60

[backup]
retention = "14 days"

[environments.staging.backup]
retention = "21 days"
drill.enabled = false

[monitor]
every = "30 s"

[environments.staging.monitor]
enabled = false
"#;

fn strategy() -> Strategy {
    Strategy::parse(LAYERED, Path::new("/srv/shop/obyra-db.toml"))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn an_environment_overrides_key_by_key() {
    let strategy = strategy();
    let dev = strategy.environment("dev").unwrap();
    let staging = strategy.environment("staging").unwrap();
    let limit =
        |environment: &obyra_strategy::Environment| environment.access.roles["shop_app"].connection_limit;
    assert_eq!((limit(dev), limit(staging)), (Some(60), Some(5)));
    // Tables merge: what the layer above does not name stays.
    assert_eq!(staging.access.roles["shop_app"].schemas["app"], "read-write");
    assert_eq!(staging.access.roles.len(), 2);
    assert_eq!(dev.access.roles.len(), 1);
    // Lists replace.
    assert_eq!(staging.access.roles["shop_app"].search_path, ["app", "audit"]);
    assert_eq!(staging.backup.retention.to_string(), "21 days");
    assert!(dev.backup.drill.enabled && !staging.backup.drill.enabled);
}

#[test]
fn paths_are_relative_to_the_file() {
    let strategy = strategy();
    assert_eq!(strategy.folder, Path::new("/srv/shop"));
    assert_eq!(strategy.state_dir, Path::new("/srv/shop/.obyra-db"));
    let reach = &strategy.environment("staging").unwrap().reach;
    assert_eq!(*reach, Reach::UrlFile("/srv/shop/secrets/staging.url".into()));
    assert_eq!(strategy.environment("dev").unwrap().reach, Reach::Embedded);
}

#[test]
fn an_unknown_environment_is_answered_with_those_there_are() {
    let failure = strategy().environment("stagin").unwrap_err();
    assert_eq!(failure.what.to_string(), "there is no environment stagin; defined: dev, staging");
    assert_eq!(failure.mend.unwrap().to_string(), "did you mean staging?");
}

#[test]
fn a_name_says_what_an_environment_is_for() {
    for (name, stage) in [
        ("dev", Some(Stage::Development)),
        ("Staging-2", Some(Stage::Staging)),
        ("preprod", Some(Stage::Staging)),
        ("producción", Some(Stage::Production)),
        ("customers", None),
    ] {
        assert_eq!(Stage::named(name), stage, "{name}");
    }
}

#[test]
fn only_what_is_declared_can_be_missing() {
    let strategy = strategy();
    let lines = |name: &str| -> Vec<LineId> {
        not_built(strategy.environment(name).unwrap()).iter().map(|missing| missing.line).collect()
    };
    assert_eq!(lines("dev"), [LineId::Monitoring]);
    assert_eq!(lines("staging"), []);
    assert!(!strategy.environment("dev").unwrap().declares("migrations"));
}
