//! Small golden outputs of a checklist.

use jiff::Timestamp;
use obyra_evidence::render::Style;
use obyra_evidence::{Code, Language, Message, text::continuity};

use super::*;
use crate::{Fact, Facts, Line, LineId, Until, Waiver, checklist};

const PLAIN: Style = Style { colour: false };

fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

fn said(code: Code, field: &'static str, value: &str) -> Message {
    code.with(field, value)
}

/// Two lines passed, one failed, two waived, the rest unknown; of the others only `pitr` is asked.
fn lines() -> Vec<Line> {
    let mut facts = Facts::about("staging");
    let mut put = |line, fact| facts.facts.insert(line, fact);
    let places = said(continuity::RUNBOOK_EMERGENCY, "place", "vault:obyra/break_glass");
    put(LineId::Emergency, Fact::Holds { evidence: vec![places] });
    put(LineId::Roles, Fact::Holds { evidence: vec![said(continuity::RUNBOOK_NO_CONTACT, "name", "<b>")] });
    put(
        LineId::Seeds,
        Fact::Broken {
            evidence: vec![continuity::RUNBOOK_NOBODY.message(), continuity::RUNBOOK_NO_RTO.message()],
            mend: continuity::MEND_RUNBOOK_SECTION.message(),
        },
    );
    put(LineId::Migrations, Fact::Unknown { why: continuity::RUNBOOK_NO_RPO.message(), mend: None });
    put(LineId::Backups, Fact::NotBuilt);
    put(LineId::Monitoring, Fact::NotAsked);
    for id in &LineId::ALL[7..] {
        put(*id, Fact::NotAsked);
    }
    put(LineId::Pitr, Fact::NotBuilt);
    facts.since.insert(LineId::Roles, "2026-02-01T09:30:00Z".parse().unwrap());
    let waiver = |line, until: &str| Waiver {
        line,
        environment: None,
        until: Until(until.parse().unwrap()),
        reason: "provider is being changed".into(),
        by: "Ana".into(),
    };
    let waivers = [waiver(LineId::Pitr, "2026-03-31"), waiver(LineId::Seeds, "2026-02-28")];
    checklist(&facts, &waivers, now())
}

#[test]
fn for_people() {
    let lines = lines();
    let report = Report { environment: "staging", at: now(), lines: &lines };
    assert_eq!(
        terminal(&report, Language::En, PLAIN),
        "\
Deploy checklist: staging (2026-03-01 10:00 UTC)
unknown  Credentials kept in a secret manager and loaded into the runtime (Docker/Kubernetes/VM) [credentials]: not observed
ok       Roles created and grants applied (obyra_app, obyra_migrate, obyra_readonly) [roles]
         <b> has no contact
         since 2026-02-01 09:30 UTC
unknown  alembic upgrade head executed on an empty database without errors [migrations]: no recovery point objective (RPO) is stated
FAIL     Seeds applied and verified (initial organisations, admin users) [seeds]
         nobody is named
         no recovery time objective (RTO) is stated
         the waiver by Ana expired on 2026-02-28
         -> complete [runbook] in the strategy file
unknown  Automatic backups configured and tested [backups]: not built yet
waived   Monitoring and alerts active (CPU, connections, storage, locks) [monitoring]
         the strategy does not ask for it here
ok       Emergency credentials and communication plan documented [emergency]
         emergency credentials: vault:obyra/break_glass

Further lines of the strategy
waived   Point-in-time recovery of at least 7 days in production [pitr]
         not built yet
         waived until 2026-03-31 by Ana: provider is being changed

2 passed, 1 failed, 3 unknown, 2 waived
"
    );
}

#[test]
fn for_people_in_the_words_of_the_strategy() {
    let lines = lines();
    let report = Report { environment: "staging", at: now(), lines: &lines[3..4] };
    assert_eq!(
        terminal(&report, Language::Es, PLAIN),
        "\
Checklist de despliegue: staging (2026-03-01 10:00 UTC)
FALLA        Seeds aplicados y verificados (organizaciones iniciales, usuarios admin) [seeds]
             no se nombra a ninguna persona
             no se indica el objetivo de tiempo de recuperación (RTO)
             la excepción de Ana venció el 2026-02-28
             -> completar [runbook] en el archivo de estrategia

0 cumplidas, 1 incumplidas, 0 desconocidas, 0 eximidas
"
    );
}

#[test]
fn for_a_pull_request() {
    let lines = lines();
    let report = Report { environment: "staging", at: now(), lines: &lines[1..4] };
    assert_eq!(
        markdown(&report, Language::En),
        "\
## Deploy checklist: staging (2026-03-01 10:00 UTC)

- [x] Roles created and grants applied (obyra\\_app, obyra\\_migrate, obyra\\_readonly)
  - &lt;b&gt; has no contact
  - since 2026-02-01 09:30 UTC
- [ ] **unknown** alembic upgrade head executed on an empty database without errors
  - no recovery point objective (RPO) is stated
- [ ] **FAIL** Seeds applied and verified (initial organisations, admin users)
  - nobody is named
  - no recovery time objective (RTO) is stated
  - the waiver by Ana expired on 2026-02-28
  - → complete \\[runbook\\] in the strategy file

1 passed, 1 failed, 1 unknown, 0 waived
"
    );
}

#[test]
fn for_machines() {
    let lines = lines();
    let document = json(&Report { environment: "staging", at: now(), lines: &lines }, Language::Es);
    assert_eq!(document["exit"], 2);
    assert_eq!(document["summary"], serde_json::json!({"passed": 2, "failed": 1, "unknown": 3, "waived": 2}));
    let pitr = &document["lines"][7];
    assert_eq!(
        (&pitr["id"], &pitr["status"], &pitr["observed"]),
        (&"pitr".into(), &"waived".into(), &"unknown".into())
    );
    assert_eq!(pitr["section"], "5");
    assert_eq!(pitr["evidence"][0]["code"], "continuity.not-built");
    assert_eq!(pitr["evidence"][0]["text"], "todavía no construido");
    assert_eq!(document["lines"][1]["since"], "2026-02-01T09:30:00Z");
}

#[test]
fn for_ci_servers() {
    let lines = lines();
    let document = junit(&Report { environment: "staging", at: now(), lines: &lines }, Language::En);
    assert!(document.contains("tests=\"8\" failures=\"1\" errors=\"3\" skipped=\"2\""), "{document}");
    assert!(document.contains(
        "<testcase classname=\"staging.section-7\" name=\"backups: Automatic backups configured and tested\" \
         time=\"0\"><error type=\"unknown\" message=\"not built yet\">not built yet</error></testcase>"
    ));
    assert!(document.contains("<skipped message=\"not built yet; waived until 2026-03-31 by Ana"));
}
