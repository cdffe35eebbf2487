//! What is wrong with a file is said at once, each with its line and column, in both languages.

use std::fs;
use std::path::Path;

use obyra_evidence::{Exit, Failure, Finding, Language, Severity};
use obyra_strategy::{Problems, Strategy};

/// Ten mistakes: five of shape, five of meaning, one of them in a layer.
const TEN: &str = r#"
language = "en"

[environments.dev]
runs_on = "embeded"
database = "shop_dev"

[environments.staging]
runs_on = "rds"
url_env = "SHOP_ADMIN_URL"
database = "shop"
netwroks = ["10.20.0.0/16"]

[environments.production]
runs_on = "rds"
url_env = "SHOP_ADMIN_URL"
database = "shop"
networks = ["10.30.0.5/16"]

[environments.production.backup]
retention = "5 days"
pitr = { enabled = true, window = "7 days" }

[access]
owner = "shop_owner"

[access.roles.shop_app]
schemas = { app = "read-write" }
connection_limit = "60"

[access.roles.shop_migrate]
acts_as = "shop_owner"
member_of = ["shop_ap"]

[migrations]
run_as = "shop_migrat"

[alerts]
connections_max_percent = 180
lock_wait_max = "30 parsecs"
"#;

fn problems(text: &str) -> Problems {
    Strategy::parse(text, Path::new("obyra-db.toml")).expect_err("the file has mistakes")
}

fn listed(findings: &[Finding], language: Language) -> String {
    let line = |finding: &Finding| {
        let place = finding.place.as_ref().expect("a place");
        let mend = finding.mend.as_ref().map(|mend| format!("\n    {}", mend.say(language)));
        let said = finding.message.say(language);
        format!("{place}: {}\n    {said}{}", finding.subject, mend.unwrap_or_default())
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn ten_mistakes_are_one_report() {
    let problems = problems(TEN);
    insta::assert_snapshot!("ten_mistakes.en", listed(&problems.findings, Language::En));
    insta::assert_snapshot!("ten_mistakes.es", listed(&problems.findings, Language::Es));
    let failure = Failure::from(problems);
    assert_eq!(failure.exit, Exit::Usage);
    assert_eq!(failure.at.expect("a place").line, 5);
}

/// A file with one production environment and these lines.
fn with(own: &str, sections: &str) -> String {
    format!("[environments.production]\nruns_on = \"self-hosted\"\ndatabase = \"shop\"\n{own}\n{sections}\n")
}

const REACHED: &str = "url_env = \"URL\"";

/// The codes of all findings, each with its line and column.
fn codes(text: &str) -> Vec<String> {
    codes_from(text, Severity::Note)
}

/// The codes of the findings that weigh at least so much.
fn codes_from(text: &str, severity: Severity) -> Vec<String> {
    let findings = match Strategy::parse(text, Path::new("f.toml")) {
        Ok(strategy) => strategy.warnings,
        Err(problems) => problems.findings,
    };
    let code = |finding: &Finding| {
        let place = finding.place.as_ref().expect("a place");
        format!("{}@{}:{}", finding.message.code().id(), place.line, place.column)
    };
    findings.iter().filter(|finding| finding.severity >= severity).map(code).collect()
}

#[test]
fn an_environment_is_reached_in_one_way() {
    for (own, expected) in [
        ("", vec!["strategy.unreachable@2:11"]),
        ("url_env = \"A\"\nurl_file = \"b\"", vec!["strategy.reached-twice@5:12"]),
        ("url_evn = \"A\"", vec!["strategy.unknown-key@4:1"]),
        ("url = \"postgresql://root:s3cret@db/shop\"", vec!["strategy.password-in-file@4:7"]),
        ("url = \"host=db user=root password=s3cret\"", vec!["strategy.password-in-file@4:7"]),
        ("url = \"postgresql://root@db/shop\"", vec![]),
        ("url = \"\"", vec!["strategy.text-empty@4:7"]),
        ("url_env = \"A\"\nrecreate = true", vec!["strategy.recreate-refused@5:12"]),
        ("url_env = \"A\"\nrecreate = true\nstage = \"development\"", vec![]),
    ] {
        assert_eq!(codes(&with(own, "")), expected, "{own}");
    }
    let embedded = "[environments.dev]\nruns_on = \"embedded\"\ndatabase = \"d\"\nurl_env = \"A\"";
    assert_eq!(codes(embedded), ["strategy.embedded-with-url@4:11"]);
    let production = "[environments.prod]\nruns_on = \"embedded\"\ndatabase = \"d\"";
    assert_eq!(codes(production), ["strategy.embedded-refused@2:11"]);
}

#[test]
fn environments_do_not_share_a_database() {
    let two = |a: &str, b: &str| {
        let one = |name: &str, own: &str| format!("[environments.{name}]\nruns_on = \"rds\"\n{own}\n");
        codes(&(one("a", a) + &one("b", b)))
    };
    let shared = "url_env = \"A\"\ndatabase = \"x\"";
    assert_eq!(two(shared, shared), ["strategy.same-database@7:11"]);
    assert_eq!(two(shared, "url_env = \"A\"\ndatabase = \"y\""), ["strategy.same-server@7:11"]);
    let literal = "url = \"host=db user=u\"\ndatabase = \"x\"";
    let other_form = "url = \"postgres://v@db:5432/z\"\ndatabase = \"x\"";
    assert_eq!(two(literal, other_form), ["strategy.same-database@7:7"]);
    assert_eq!(two(shared, literal), Vec::<String>::new());
}

#[test]
fn contradictions_of_the_sections_are_found() {
    for (sections, expected) in [
        ("[backup]\nretention = \"13 days\"\npitr.enabled = true", vec!["strategy.retention-short@6:13"]),
        (
            "[backup]\nretention = \"3 days\"\npitr.enabled = true",
            vec!["strategy.retention-below-pitr@6:13", "strategy.retention-short@6:13"],
        ),
        ("[backup]\nretention = \"30 days\"", vec!["strategy.no-pitr@5:2"]),
        ("[backup]\nenabled = false", vec!["strategy.no-backup@6:11"]),
        ("[security]\nrequire_tls = false", vec!["strategy.tls-not-required@6:15"]),
        (
            "[security]\nsensitive_tables = [\"users\", \"app.users\"]",
            vec!["strategy.table-unqualified@6:21", "strategy.sensitive-without-rule@6:30"],
        ),
        ("[alerts]\nnotify = [\"devops\"]", vec!["strategy.channel-unknown@6:11"]),
        ("[alerts.channels.devops]\nkind = \"slack\"", vec!["strategy.channel-lacks@5:18"]),
        ("[alerts.channels.devops]\nto = []", vec!["strategy.missing-key@5:18"]),
        ("[anonymize]\nfrom = \"productoin\"", vec!["strategy.environment-unknown@6:8"]),
        ("[anonymize]\nfrom = \"production\"", vec!["strategy.copy-onto-itself@6:8"]),
        ("[access.roles.r.schemas]\naudti = \"read\"", vec!["strategy.schema-unknown@6:9"]),
        ("[access.roles.r]\nschemas = { app = \"reed\" }", vec!["access.level-unknown@6:19"]),
        ("[alerts]\nlock_wait_max = \"0 s\"", vec!["strategy.zero-duration@6:17"]),
        (
            "[backup]\nretention = \"0 days\"",
            vec!["strategy.no-pitr@5:2", "strategy.zero-duration@6:13", "strategy.retention-short@6:13"],
        ),
        ("[secrets.rotation]\nnotify_before = \"90 days\"", vec!["strategy.notice-too-early@6:17"]),
        (
            "[backup]\nretention = \"30 days\"\n[runbook]\nrpo = \"1 h\"",
            vec!["strategy.no-pitr@5:2", "strategy.rpo-unreachable@8:7"],
        ),
        ("[access.roles.\"../x\"]\nlogin = true", vec!["strategy.role-no-file@5:15"]),
        ("[environments.\"../x\"]\nruns_on = \"embedded\"", vec!["strategy.not-a-name@5:15"]),
        ("[seeds]\nrun_as = \"nobody\"", vec!["strategy.role-unknown@6:10"]),
    ] {
        assert_eq!(codes(&with(REACHED, sections)), expected, "{sections}");
    }
}

#[test]
fn values_have_the_form_they_need() {
    for (own, expected) in [
        (
            "networks = [\"10.0.0.0/8\", \"10.0.0.1\", \"::/8\", \"x\"]",
            vec!["strategy.not-a-network@5:27", "strategy.not-a-network@5:47"],
        ),
        ("networks = \"10.0.0.0/8\"", vec!["strategy.expected-array@5:12"]),
        ("postgres_version = 13", vec!["strategy.out-of-range@5:20"]),
        ("postgres_version = \"16\"", vec!["strategy.expected-integer@5:20"]),
        ("postgres_version = 99999999999999999999", vec!["strategy.too-large@5:20"]),
        ("recreate = \"no\"", vec!["strategy.expected-boolean@5:12"]),
        ("schemas = { app = \"\" }", vec!["strategy.not-an-identifier@5:19"]),
        ("schemas = \"app\"", vec!["strategy.expected-table@5:11"]),
        ("backup.at = \"24:00\"", vec!["strategy.not-a-clock@5:13"]),
        ("backup.repository = \"ftp://x\"", vec!["strategy.not-a-store@5:21"]),
        ("backup.retention = 30", vec!["strategy.expected-string@5:20"]),
        (
            "waivers = [{ line = \"pitr\", until = 2027-02-30, reason = \"r\", by = \"b\" }]",
            vec!["strategy.syntax@5:37"],
        ),
        (
            "waivers = [{ line = \"pitr\", until = \"soon\", reason = \"r\", by = \"b\" }]",
            vec!["strategy.not-a-date@5:37"],
        ),
        ("waivers = [{ line = \"pitr\", until = 2027-02-28, reason = \"r\", by = \"b\" }]", vec![]),
        (
            "waivers = [{ line = \"pitrr\", until = 2027-02-28, by = \"b\" }]",
            vec!["strategy.missing-key@5:12", "strategy.not-allowed@5:21"],
        ),
        (
            "waivers = [{ line = \"pitr\", environment = \"x\", until = 2027-02-28, reason = \"r\", by = \"b\" }]",
            vec!["strategy.environment-unknown@5:43"],
        ),
    ] {
        let text = with(&format!("{REACHED}\n{own}"), "");
        assert_eq!(codes_from(&text, Severity::Error), expected, "{own}");
    }
}

#[test]
fn no_report_repeats_a_password() {
    for text in [
        with("url = \"postgresql://root:s3cret@db/shop\"", ""),
        with("runs_on = \"postgresql://root:s3cret@db/shop\"", ""),
        with("url_env = [\"postgresql://root:s3cret@db/shop\"]", ""),
        with("networks = [\"postgresql://root:s3cret@db/shop\"]", ""),
        with("url = \"postgresql://root:s3cret@db:port/shop?sslmod=x\"", ""),
        with("url = postgresql://root:s3cret@db/shop", ""),
        with(REACHED, "[secrets]\npassword = \"s3cret\""),
    ] {
        let problems = problems(&text);
        let failure = Failure::from(problems.clone());
        let said = format!("{problems} {failure:?} {problems:?}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn a_mistake_that_everyone_inherits_is_said_once() {
    let text = "[environments.a]\nruns_on = \"rds\"\nurl_env = \"A\"\ndatabase = \"x\"\n\
                [environments.b]\nruns_on = \"rds\"\nurl_env = \"B\"\ndatabase = \"x\"\n\
                [alerts]\nnotify = [\"devops\"]\n";
    assert_eq!(codes(text), ["strategy.channel-unknown@10:11"]);
}

#[test]
fn syntax_errors_have_places() {
    assert_eq!(codes("language = \"en\nstate_dir = 3"), ["strategy.syntax@1:15"]);
    assert_eq!(codes("[environments.dev]\n[environments.dev]")[0], "strategy.syntax@2:15");
    assert_eq!(codes("a = 1\na = 2")[0], "strategy.syntax@2:1");
    assert!(codes(&"[".repeat(4000))[0].starts_with("strategy.syntax@1:"));
}

/// A file's bytes, and the code of the only finding.
fn code_of(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("obyra-db.toml");
    fs::write(&file, bytes).expect("a temporary folder");
    let problems = Strategy::load(&file).expect_err("not a strategy");
    assert_eq!(problems.findings.len(), 1);
    assert_eq!(problems.findings[0].severity, Severity::Error);
    problems.findings[0].message.code().id().to_owned()
}

#[test]
fn files_that_are_no_text_are_refused_in_words() {
    assert_eq!(code_of(b""), "strategy.file-empty");
    assert_eq!(code_of(b" \n\n"), "strategy.file-empty");
    assert_eq!(code_of(b"# nothing yet\n"), "strategy.no-environment");
    assert_eq!(code_of(b"[environment.dev]"), "strategy.unknown-key");
    assert_eq!(code_of(b"language = \"en\xff\""), "strategy.file-not-utf8");
    assert_eq!(code_of(b"\xff\xfel\0"), "strategy.file-utf16");
    assert_eq!(code_of(&vec![b'#'; 2 << 20]), "strategy.file-too-large");
    let load = |path: &Path| Strategy::load(path).expect_err("no file").findings[0].message.code().id();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(load(folder.path()), "strategy.file-is-folder");
    assert_eq!(load(&folder.path().join("none.toml")), "strategy.file-missing");
}

#[test]
fn a_byte_order_mark_is_no_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("obyra-db.toml");
    fs::write(&file, format!("\u{FEFF}{}", with(REACHED, ""))).unwrap();
    let strategy = Strategy::load(&file).unwrap();
    assert_eq!(strategy.state_dir, folder.path().join(".obyra-db"));
    assert!(strategy.state_dir.is_absolute());
}

/// Every value of the whole template in turn becomes something else: nothing panics, and
/// every finding points into the file.
#[test]
fn any_value_may_be_wrong() {
    let template = Strategy::default_template("obyra", Language::En);
    let lines: Vec<&str> = template.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) else {
            continue;
        };
        for other in ["7", "\"x\"", "[{}]", "2027-01-01"] {
            let mut changed = lines.clone();
            let replaced = format!("{key} = {other}");
            changed[at] = &replaced;
            let findings = match Strategy::parse(&changed.join("\n"), Path::new("f.toml")) {
                Ok(strategy) => strategy.warnings,
                Err(problems) => problems.findings,
            };
            for finding in &findings {
                let place = finding.place.as_ref().expect("a place");
                let column_max = changed[place.line - 1].chars().count() + 1;
                assert!(place.column <= column_max, "{replaced}: {finding:?}");
            }
            assert!(findings.len() < 40, "{replaced}: {findings:?}");
        }
    }
}
