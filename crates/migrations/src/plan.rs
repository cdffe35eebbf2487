//! What to do: the revisions that are still to be applied, and what stands in their way.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Finding, Place, Severity, text};
use serde::Serialize;

use crate::Policy;
use crate::driver::{Graph, Revision};
use crate::observe::Observed;

/// From where to where, by which revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The revisions that the database stands at.
    pub from: Vec<String>,
    /// The revision to reach; none when there are no revisions, or several heads.
    pub to: Option<String>,
    /// The revisions to apply, each after those that it follows.
    pub pending: Vec<Revision>,
    /// What a person should know. One of error level means that nothing can be deployed.
    pub findings: Vec<Finding>,
}

impl Plan {
    /// Whether the database stands at the head.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The first finding that stands in the way.
    pub fn obstacle(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.severity == Severity::Error)
    }
}

/// Plans the way from what is observed to the head.
pub fn plan(policy: &Policy, observed: &Observed) -> Plan {
    let from = observed.current();
    let to = match observed.graph.heads.as_slice() {
        [head] => Some(head.clone()),
        _ => None,
    };
    let applied = ancestors(&observed.graph, &from);
    let pending = observed.graph.revisions.iter().filter(|revision| !applied.contains(revision.id.as_str()));
    let pending = pending.cloned().collect();
    let mut findings = Vec::new();
    findings.extend(heads_finding(&observed.graph));
    findings.extend(observed.graph.warnings.iter().map(|said| {
        Finding::new(Severity::Error, "migrations", text::migrations::GRAPH_AMBIGUOUS.with("said", said))
            .mended_by(text::migrations::MEND_GRAPH_AMBIGUOUS)
    }));
    findings.extend(tables_finding(policy, observed));
    findings.extend(unknown_findings(policy, observed));
    Plan { from, to, pending, findings }
}

/// The revisions given and all that they follow.
fn ancestors<'a>(graph: &'a Graph, revisions: &'a [String]) -> BTreeSet<&'a str> {
    let down: BTreeMap<&str, &[String]> =
        graph.revisions.iter().map(|revision| (revision.id.as_str(), revision.down.as_slice())).collect();
    let mut seen = BTreeSet::new();
    let mut next: Vec<&str> = revisions.iter().map(String::as_str).collect();
    while let Some(revision) = next.pop() {
        if seen.insert(revision) {
            next.extend(down.get(revision).copied().unwrap_or_default().iter().map(String::as_str));
        }
    }
    seen
}

/// Several heads: `upgrade head` does not know which. Several bases are fine.
fn heads_finding(graph: &Graph) -> Option<Finding> {
    use text::migrations as say;
    if graph.heads.is_empty() {
        return Some(Finding::new(Severity::Warning, "migrations", say::NO_REVISIONS));
    }
    if graph.heads.len() == 1 {
        return None;
    }
    let heads: Vec<&Revision> = graph.revisions.iter().filter(|r| graph.heads.contains(&r.id)).collect();
    let named = heads.iter().map(|head| format!("{} ({})", head.id, head.file.display())).collect::<Vec<_>>();
    let ids = heads.iter().map(|head| head.id.as_str()).collect::<Vec<_>>();
    let mut finding = Finding::new(
        Severity::Error,
        "migrations",
        say::SEVERAL_HEADS.with("count", named.len()).with("heads", named.join(", ")),
    )
    .mended_by(say::MEND_SEVERAL_HEADS.with("heads", ids.join(" ")));
    if let Some(last) = heads.last() {
        finding = finding.at(Place { file: last.file.clone(), line: 1, column: 1 });
    }
    Some(finding)
}

/// Several version tables: which one tells the truth, nobody knows.
fn tables_finding(policy: &Policy, observed: &Observed) -> Option<Finding> {
    use text::migrations as say;
    if observed.version_tables.len() < 2 {
        return None;
    }
    let tables = observed.version_tables.iter().map(|table| {
        let revisions = if table.revisions.is_empty() { "–".to_owned() } else { table.revisions.join(" ") };
        format!("{} ({revisions})", table.qualified())
    });
    let tables = tables.collect::<Vec<_>>().join(", ");
    let finding = Finding::new(
        Severity::Error,
        format!("table {}", policy.version_table),
        say::SEVERAL_VERSION_TABLES.with("tables", tables),
    );
    Some(finding.mended_by(say::MEND_SEVERAL_VERSION_TABLES))
}

/// The database stands at a revision that the folder does not have: an older checkout, or a lost file.
fn unknown_findings(policy: &Policy, observed: &Observed) -> Vec<Finding> {
    use text::migrations as say;
    let known: BTreeSet<&String> = observed.graph.revisions.iter().map(|revision| &revision.id).collect();
    let unknown = observed.current().into_iter().filter(|revision| !known.contains(revision));
    let finding = |revision: String| {
        Finding::new(
            Severity::Error,
            format!("revision {revision}"),
            say::UNKNOWN_REVISION.with("revision", &revision).with("folder", policy.directory.display()),
        )
        .mended_by(say::MEND_UNKNOWN_REVISION)
    };
    unknown.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::VersionTable;

    /// A graph from `id: parents`, in topological order.
    fn graph(lines: &[(&str, &[&str])]) -> Graph {
        let revisions: Vec<Revision> = lines
            .iter()
            .map(|(id, down)| Revision {
                id: (*id).to_owned(),
                down: down.iter().map(|parent| (*parent).to_owned()).collect(),
                doc: String::new(),
                file: format!("versions/{id}.py").into(),
            })
            .collect();
        let followed: BTreeSet<&String> = revisions.iter().flat_map(|revision| &revision.down).collect();
        let heads = revisions.iter().filter(|r| !followed.contains(&r.id)).map(|r| r.id.clone()).collect();
        let bases = revisions.iter().filter(|r| r.down.is_empty()).map(|r| r.id.clone()).collect();
        Graph { heads, bases, revisions, ..Graph::default() }
    }

    fn at(schema: &str, revisions: &[&str]) -> VersionTable {
        let revisions = revisions.iter().map(|revision| (*revision).to_owned()).collect();
        VersionTable { schema: schema.into(), name: "alembic_version".into(), revisions, oid: 0 }
    }

    fn planned(graph: Graph, version_tables: Vec<VersionTable>) -> Plan {
        plan(&Policy::default(), &Observed { graph, version_tables })
    }

    fn pending(plan: &Plan) -> Vec<&str> {
        plan.pending.iter().map(|revision| revision.id.as_str()).collect()
    }

    const MERGED: &[(&str, &[&str])] =
        &[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"]), ("e", &["d"])];

    #[test]
    fn an_empty_database_gets_every_revision() {
        let plan = planned(graph(MERGED), Vec::new());
        assert_eq!(pending(&plan), ["a", "b", "c", "d", "e"]);
        assert_eq!((plan.to.as_deref(), plan.findings.len()), (Some("e"), 0));
    }

    #[test]
    fn a_branch_that_was_never_applied_is_pending() {
        assert_eq!(pending(&planned(graph(MERGED), vec![at("app", &["b"])])), ["c", "d", "e"]);
        assert_eq!(pending(&planned(graph(MERGED), vec![at("app", &["b", "c"])])), ["d", "e"]);
        assert!(planned(graph(MERGED), vec![at("app", &["e"])]).is_empty());
    }

    #[test]
    fn several_heads_stand_in_the_way_and_are_named_with_their_files() {
        let plan = planned(graph(&MERGED[..3]), Vec::new());
        let obstacle = plan.obstacle().expect("an obstacle");
        assert_eq!(obstacle.message.code().id(), "migrations.several-heads");
        let said = obstacle.message.to_string();
        assert!(said.contains("b (versions/b.py), c (versions/c.py)"), "{said}");
        assert!(plan.to.is_none());
    }

    #[test]
    fn several_bases_are_fine() {
        let plan = planned(graph(&[("a", &[]), ("b", &[]), ("c", &["a", "b"])]), Vec::new());
        assert!(plan.findings.is_empty());
    }

    #[test]
    fn a_revision_that_nobody_has_is_named() {
        let plan = planned(graph(MERGED), vec![at("app", &["zz"])]);
        assert_eq!(plan.obstacle().expect("an obstacle").subject, "revision zz");
    }

    #[test]
    fn two_version_tables_are_one_too_many() {
        let plan = planned(graph(MERGED), vec![at("app", &["e"]), at("public", &[])]);
        let said = plan.obstacle().expect("an obstacle").message.to_string();
        assert!(said.contains("app.alembic_version (e), public.alembic_version (–)"), "{said}");
    }
}
