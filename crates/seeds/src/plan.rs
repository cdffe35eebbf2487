//! Which seeds to apply: the files compared with what was recorded. Pure.

use std::collections::BTreeMap;

use obyra_evidence::{Code, Finding, Message, Severity, text};
use serde::Serialize;

use crate::{Observed, Recorded, Seed};

/// What is to be done about one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It was never applied: apply it.
    Apply,
    /// It is repeatable and its file changed: apply it again.
    Repeat,
    /// It was applied as it is.
    None,
    /// It was applied and its file changed since: nothing is applied until somebody decides.
    Refuse,
    /// It was applied and its file is gone.
    Missing,
}

/// One seed and what is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The seed's number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// What is to be done.
    pub action: Action,
    /// Why.
    pub reason: Message,
}

/// All seeds, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// One step for each seed, applied or not.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The steps that run a seed.
    pub fn to_run(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step.action, Action::Apply | Action::Repeat))
    }

    /// Whether nothing is to be applied and nothing is refused.
    pub fn is_in_order(&self) -> bool {
        self.steps.iter().all(|step| matches!(step.action, Action::None | Action::Missing))
    }

    /// What a person should know: refusals, missing files, seeds that arrive out of order.
    pub fn findings(&self) -> Vec<Finding> {
        let last_applied =
            self.steps.iter().filter(|step| step.action != Action::Apply).map(|step| step.number).max();
        let finding = |severity, step: &Step, message: Message, mend: Code| {
            Finding::new(severity, format!("seed {:03}_{}", step.number, step.name), message).mended_by(mend)
        };
        self.steps
            .iter()
            .filter_map(|step| match step.action {
                Action::Refuse => {
                    Some(finding(Severity::Error, step, step.reason.clone(), text::seeds::MEND_CHANGED))
                }
                Action::Missing => {
                    Some(finding(Severity::Warning, step, step.reason.clone(), text::seeds::MEND_MISSING))
                }
                Action::Apply if last_applied > Some(step.number) => Some(finding(
                    Severity::Warning,
                    step,
                    text::seeds::OUT_OF_ORDER.with("last", last_applied.unwrap_or_default()),
                    text::seeds::MEND_OUT_OF_ORDER,
                )),
                _ => None,
            })
            .collect()
    }
}

/// Compares the files with what was recorded.
pub fn plan(seeds: &[Seed], observed: &Observed) -> Plan {
    let recorded: BTreeMap<u32, &Recorded> =
        observed.recorded().iter().map(|row| (row.number, row)).collect();
    let mut steps: BTreeMap<u32, Step> = seeds
        .iter()
        .map(|seed| {
            let (action, reason) = decide(seed, recorded.get(&seed.number).copied());
            (seed.number, Step { number: seed.number, name: seed.name.clone(), action, reason })
        })
        .collect();
    for (number, row) in recorded {
        steps.entry(number).or_insert_with(|| Step {
            number,
            name: row.name.clone(),
            action: Action::Missing,
            reason: text::seeds::MISSING.with("when", &row.applied_at),
        });
    }
    Plan { steps: steps.into_values().collect() }
}

fn decide(seed: &Seed, recorded: Option<&Recorded>) -> (Action, Message) {
    match recorded {
        None => (Action::Apply, text::seeds::PENDING.message()),
        Some(row) if row.checksum == seed.checksum => (
            Action::None,
            text::seeds::UP_TO_DATE.with("when", &row.applied_at).with("role", &row.applied_by),
        ),
        Some(row) if seed.repeatable => (Action::Repeat, text::seeds::REPEAT.with("when", &row.applied_at)),
        Some(row) => (Action::Refuse, text::seeds::CHANGED.with("when", &row.applied_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(number: u32, text: &str) -> Seed {
        Seed::new(number, format!("s{number}"), format!("{number:03}_s{number}.sql"), text.into()).unwrap()
    }

    fn row(seed: &Seed) -> Recorded {
        Recorded {
            number: seed.number,
            name: seed.name.clone(),
            checksum: seed.checksum.clone(),
            applied_at: "2026-11-24T12:00:00.000Z".into(),
            duration_seconds: 0.1,
            applied_by: "obyra_migrate".into(),
        }
    }

    fn actions(plan: &Plan) -> Vec<(u32, Action)> {
        plan.steps.iter().map(|step| (step.number, step.action)).collect()
    }

    #[test]
    fn without_a_table_all_are_pending() {
        let plan = plan(&[seed(1, "SELECT 1"), seed(2, "SELECT 2")], &Observed::Absent);
        assert_eq!(actions(&plan), [(1, Action::Apply), (2, Action::Apply)]);
        assert!(!plan.is_in_order());
        assert!(plan.findings().is_empty());
    }

    #[test]
    fn each_seed_has_its_own_answer() {
        let repeatable = "-- obyra-db: repeatable\n";
        let before = [
            seed(1, "SELECT 1"),
            seed(2, "SELECT 2"),
            seed(3, &format!("{repeatable}SELECT 3")),
            seed(4, "SELECT 4"),
            seed(6, "SELECT 6"),
        ];
        let now = [
            before[0].clone(),
            seed(2, "SELECT 22"),
            seed(3, &format!("{repeatable}SELECT 33")),
            seed(5, "SELECT 5"),
            before[4].clone(),
        ];
        let plan = plan(&now, &Observed::Recorded(before.iter().map(row).collect()));
        assert_eq!(
            actions(&plan),
            [
                (1, Action::None),
                (2, Action::Refuse),
                (3, Action::Repeat),
                (4, Action::Missing),
                (5, Action::Apply),
                (6, Action::None)
            ]
        );
        let findings: Vec<_> = plan.findings().into_iter().map(|f| (f.subject, f.message.code())).collect();
        assert_eq!(
            findings,
            [
                ("seed 002_s2".to_owned(), text::seeds::CHANGED),
                ("seed 004_s4".to_owned(), text::seeds::MISSING),
                ("seed 005_s5".to_owned(), text::seeds::OUT_OF_ORDER),
            ]
        );
    }

    #[test]
    fn applied_as_they_are_they_are_in_order() {
        let seeds = [seed(1, "SELECT 1"), seed(2, "SELECT 2")];
        let plan = plan(&seeds, &Observed::Recorded(seeds.iter().map(row).collect()));
        assert!(plan.is_in_order());
        assert_eq!(plan.to_run().count(), 0);
    }
}
