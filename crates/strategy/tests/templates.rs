//! Every template is a strategy without a single finding, and says the same in both languages.

use std::path::Path;

use obyra_evidence::Language;
use obyra_strategy::{Environment, Strategy, schema};

const LANGUAGES: [Language; 2] = [Language::En, Language::Es];

fn load(name: &str, language: Language) -> Strategy {
    let text = Strategy::default_template(name, language);
    Strategy::parse(text, Path::new("obyra-db.toml")).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_template_loads_without_a_finding() {
    for name in ["obyra", "minimal"] {
        for language in LANGUAGES {
            let strategy = load(name, language);
            assert_eq!(strategy.language, language);
            assert_eq!(strategy.warnings, [], "{name}");
        }
    }
}

/// The environments without the sentences that people wrote for people.
fn without_prose(strategy: &Strategy) -> Vec<Environment> {
    let mut environments: Vec<Environment> = strategy.environments().cloned().collect();
    for environment in &mut environments {
        let runbook = &mut environment.runbook;
        runbook.emergency_credentials = runbook.emergency_credentials.take().map(|_| String::new());
        runbook.communication.informed.fill(String::new());
        for person in &mut runbook.people {
            (person.name, person.role) = (String::new(), String::new());
        }
        for severity in runbook.severities.values_mut() {
            severity.when = String::new();
        }
    }
    environments
}

#[test]
fn the_languages_say_the_same() {
    for name in ["obyra", "minimal"] {
        let [en, es] = LANGUAGES.map(|language| load(name, language));
        assert_eq!(without_prose(&en), without_prose(&es), "{name}");
    }
}

/// Comments that show a key are right as well, once the `#` is gone.
#[test]
fn what_is_commented_out_works() {
    for language in LANGUAGES {
        let text = Strategy::default_template("obyra", language);
        let is_key = |written: &str| written.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let uncommented = |line: &'static str| match line.strip_prefix("# ") {
            Some(written) if is_key(written) || written.starts_with("[[") => written,
            _ => line,
        };
        let text = text.lines().map(uncommented).collect::<Vec<_>>().join("\n");
        let strategy =
            Strategy::parse(&text, Path::new("f.toml")).unwrap_or_else(|problems| panic!("{problems}"));
        let production = strategy.environment("production").unwrap();
        assert!(production.replica.is_some() && production.instance.is_some());
        assert_eq!(production.waivers.len(), 1);
    }
}

#[test]
fn obyras_template_shows_every_section() {
    let schema = schema();
    for section in schema["properties"].as_object().expect("properties").keys() {
        for language in LANGUAGES {
            let text = Strategy::default_template("obyra", language);
            let shown = [format!("\n{section} = "), format!("[{section}]"), format!("[{section}.")];
            assert!(shown.iter().any(|form| text.contains(form.as_str())), "{section}");
        }
    }
}

#[test]
fn obyras_template_holds_what_the_strategy_demands() {
    let strategy = load("obyra", Language::En);
    let days = |environment: &str| strategy.environment(environment).unwrap().backup.retention.to_string();
    assert_eq!((days("staging").as_str(), days("production").as_str()), ("14 days", "30 days"));
    let production = strategy.environment("production").unwrap();
    assert!(production.backup.pitr.enabled && production.backup.export.enabled);
    assert!(production.high_availability && production.security.require_tls);
    assert!(!strategy.environment("dev").unwrap().backup.enabled);
    assert_eq!(production.alerts.connections_max_percent, 80);
    assert_eq!(production.alerts.lock_wait_max.seconds(), 30);
    assert_eq!(production.alerts.growth_max_percent_per_day, 10);
    assert_eq!(production.secrets.rotation.every.to_string(), "90 days");
}
