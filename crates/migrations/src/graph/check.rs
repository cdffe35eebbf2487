//! From revisions to findings. Pure: the same files always give the same findings.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Code, Finding, Message, Place, Severity, text};

use super::lineage::Lineage;
use super::{BodyKind, Convention, Declared, Naming, RevisionFile};

/// What is wrong with a graph of revisions, by place.
pub fn check(revisions: &[RevisionFile], convention: &Convention) -> Vec<Finding> {
    let mut findings: Vec<Finding> = revisions.iter().filter_map(|r| r.trouble.clone()).collect();
    let (read, unread): (Vec<_>, Vec<_>) = revisions.iter().partition(|revision| revision.read_by_alembic);
    for revision in unread.into_iter().filter(|revision| revision.revision != Declared::Absent) {
        findings.push(warning(
            revision,
            text::graph::UNREACHABLE_FILE.into(),
            text::graph::MEND_UNREACHABLE_FILE,
        ));
    }
    for revision in &read {
        declarations(revision, &mut findings);
        bodies(revision, &mut findings);
        naming(revision, convention, &mut findings);
    }
    duplicates(&read, &mut findings);
    let certain = read.iter().all(|revision| {
        let computed = dynamic(&revision.revision).is_some() || dynamic(&revision.down_revision).is_some();
        !computed && revision.trouble.is_none()
    });
    let lineage = Lineage::of(revisions);
    let missed = missing(&read, &lineage, certain);
    shape(&lineage, certain && missed.is_empty(), &mut findings);
    findings.extend(missed);
    merges(&lineage, &mut findings);
    dates(&lineage, convention, &mut findings);
    tables(&lineage, &mut findings);
    findings.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.cmp(b)));
    findings
}

fn subject(revision: &RevisionFile) -> String {
    match revision.revision.known() {
        Some(id) => format!("revision {id}"),
        None => revision.file.display().to_string(),
    }
}

fn finding(severity: Severity, revision: &RevisionFile, message: Message, mend: Code) -> Finding {
    Finding::new(severity, subject(revision), message).at(revision.place()).mended_by(mend)
}

fn error(revision: &RevisionFile, message: Message, mend: Code) -> Finding {
    finding(Severity::Error, revision, message, mend)
}

fn warning(revision: &RevisionFile, message: Message, mend: Code) -> Finding {
    finding(Severity::Warning, revision, message, mend)
}

/// What each file declares by itself.
fn declarations(revision: &RevisionFile, findings: &mut Vec<Finding>) {
    if revision.trouble.is_some() {
        return;
    }
    if revision.revision == Declared::Absent {
        findings.push(error(revision, text::graph::NO_REVISION.into(), text::graph::MEND_NO_REVISION));
        return;
    }
    if revision.down_revision == Declared::Absent {
        findings.push(error(revision, text::graph::NO_DOWN_REVISION.into(), text::graph::MEND_NOT_STATIC));
    }
    let dynamic = [
        ("revision", dynamic(&revision.revision)),
        ("down_revision", dynamic(&revision.down_revision)),
        ("depends_on", dynamic(&revision.depends_on)),
        ("branch_labels", dynamic(&revision.branch_labels)),
    ];
    for (name, place) in dynamic {
        if let Some(place) = place {
            let message = text::graph::NOT_STATIC.with("name", name);
            findings.push(warning(revision, message, text::graph::MEND_NOT_STATIC).at(place.clone()));
        }
    }
}

fn dynamic<T>(declared: &Declared<T>) -> Option<&Place> {
    match declared {
        Declared::Dynamic { place } => Some(place),
        Declared::Absent | Declared::Known { .. } => None,
    }
}

fn bodies(revision: &RevisionFile, findings: &mut Vec<Finding>) {
    if revision.trouble.is_some() || revision.revision == Declared::Absent {
        return;
    }
    let Some(upgrade) = &revision.upgrade else {
        findings.push(error(revision, text::graph::NO_UPGRADE.into(), text::graph::MEND_NO_UPGRADE));
        return;
    };
    if upgrade.kind == BodyKind::Empty {
        return;
    }
    match &revision.downgrade {
        None => findings.push(warning(
            revision,
            text::graph::NO_DOWNGRADE.into(),
            text::graph::MEND_EMPTY_DOWNGRADE,
        )),
        Some(body) if body.kind == BodyKind::Empty => {
            let finding =
                warning(revision, text::graph::EMPTY_DOWNGRADE.into(), text::graph::MEND_EMPTY_DOWNGRADE);
            findings.push(finding.at(body.place.clone()));
        }
        Some(body) if body.kind == BodyKind::Raises => {
            let message = text::graph::IRREVERSIBLE.message();
            findings.push(Finding::new(Severity::Note, subject(revision), message).at(body.place.clone()));
        }
        Some(_) => {}
    }
}

fn naming(revision: &RevisionFile, convention: &Convention, findings: &mut Vec<Finding>) {
    let name = stem(revision);
    let (follows, mend) = match convention.naming {
        Naming::Any => return,
        Naming::DateFirst => (date(&name).is_some(), text::graph::MEND_DATE_FIRST),
        Naming::RevisionFirst => {
            let first = revision.revision.known().is_none_or(|id| name.starts_with(id.as_str()));
            (first, text::graph::MEND_REVISION_FIRST)
        }
    };
    if !follows {
        let message = text::graph::NAMING.with("name", name);
        let finding = Finding::new(Severity::Warning, subject(revision), message);
        findings.push(finding.at(revision.first_line()).mended_by(mend));
    }
}

fn stem(revision: &RevisionFile) -> String {
    revision.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The date that a name begins with: `20260801_0900`, `2026-08-01`, `2026_08_01`. Digits only, so that it sorts.
fn date(name: &str) -> Option<u32> {
    let digits: String = name.chars().filter(|c| !"-_".contains(*c)).take(8).collect();
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u32>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let plausible = (1990..2200).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    (plausible && digits.bytes().all(|b| b.is_ascii_digit())).then_some(year * 10_000 + month * 100 + day)
}

fn duplicates(read: &[&RevisionFile], findings: &mut Vec<Finding>) {
    let mut first: BTreeMap<&str, &RevisionFile> = BTreeMap::new();
    for revision in read {
        let Some(id) = revision.revision.known() else { continue };
        match first.get(id.as_str()) {
            Some(other) => {
                let file = other.file.strip_prefix(".").unwrap_or(&other.file);
                let message = text::graph::DUPLICATE_ID.with("other", file.display());
                findings.push(error(revision, message, text::graph::MEND_DUPLICATE_ID));
            }
            None => {
                first.insert(id, revision);
            }
        }
    }
}

fn missing(read: &[&RevisionFile], lineage: &Lineage<'_>, certain: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let labels: BTreeSet<&str> = read
        .iter()
        .filter_map(|revision| revision.branch_labels.known())
        .flatten()
        .map(String::as_str)
        .collect();
    // A computed identifier may be the one that is missed.
    let severity = if certain { Severity::Error } else { Severity::Warning };
    for revision in read {
        let parents = [(&revision.down_revision, false), (&revision.depends_on, true)];
        for (declared, may_be_label) in parents {
            let Declared::Known { value, place } = declared else { continue };
            for id in value {
                let exists = lineage.by_id.contains_key(id.as_str())
                    || may_be_label && (labels.contains(id.as_str()) || is_relative(id, lineage));
                if !exists {
                    let message = text::graph::MISSING_PARENT.with("parent", id);
                    let finding = finding(severity, revision, message, text::graph::MEND_MISSING_PARENT);
                    findings.push(finding.at(place.clone()));
                }
            }
        }
    }
    findings
}

/// `depends_on` may abbreviate an identifier.
fn is_relative(id: &str, lineage: &Lineage<'_>) -> bool {
    id.len() >= 4 && lineage.by_id.keys().filter(|known| known.starts_with(id)).count() == 1
}

fn shape(lineage: &Lineage<'_>, certain: bool, findings: &mut Vec<Finding>) {
    for cycle in lineage.cycles() {
        let Some(revision) = cycle.first().and_then(|id| lineage.by_id.get(id)) else { continue };
        let message = text::graph::CYCLE.with("revisions", cycle.join(" → "));
        let place = revision.down_revision.place().cloned().unwrap_or_else(|| revision.place());
        findings.push(error(revision, message, text::graph::MEND_CYCLE).at(place));
    }
    let heads = lineage.heads();
    // Whose parent is unknown may be the one that joins them, and is a finding of its own.
    if heads.len() > 1 && certain {
        let last = heads.iter().filter_map(|head| lineage.by_id.get(head)).max_by_key(|head| &head.file);
        let message = text::graph::SEVERAL_HEADS.with("count", heads.len()).with("heads", heads.join(", "));
        findings.extend(last.map(|last| error(last, message, text::graph::MEND_SEVERAL_HEADS)));
    }
    // A label says that a second beginning is meant.
    let bases: Vec<&RevisionFile> = lineage.bases();
    let unnamed = bases.iter().filter(|base| base.branch_labels.known().is_none_or(Vec::is_empty));
    if bases.len() > 1 {
        for base in unnamed.skip(1) {
            let (severity, code) = match heads.len() {
                1 => (Severity::Note, text::graph::SEVERAL_BASES_JOINED),
                _ => (Severity::Warning, text::graph::SEVERAL_BASES),
            };
            let message = code.with("count", bases.len());
            findings.push(finding(severity, base, message, text::graph::MEND_SEVERAL_BASES));
        }
    }
}

/// Merges that join nothing, or leave a branch behind.
fn merges(lineage: &Lineage<'_>, findings: &mut Vec<Finding>) {
    let heads = lineage.heads();
    for (id, revision) in lineage.by_id.iter().filter(|(_, revision)| revision.is_merge()) {
        let parents = lineage.parents(id);
        let place = revision.down_revision.place().cloned().unwrap_or_else(|| revision.place());
        for parent in parents {
            let ancestors = lineage.ancestors(parent);
            // In a cycle everybody is everybody's ancestor, and the cycle is the finding.
            if ancestors.contains(id) || ancestors.contains(parent) {
                continue;
            }
            for other in parents.iter().filter(|other| *other != parent && ancestors.contains(*other)) {
                let message = text::graph::MERGES_ANCESTOR.with("ancestor", other).with("parent", parent);
                findings
                    .push(warning(revision, message, text::graph::MEND_MERGES_ANCESTOR).at(place.clone()));
            }
            // With one head every branch ends in it.
            let left_behind = heads.iter().filter(|_| heads.len() > 1).find(|head| {
                let before = lineage.ancestors(head);
                before.contains(parent) && !before.contains(id) && *head != id
            });
            if let Some(head) = left_behind {
                let message = text::graph::MERGES_MIDWAY.with("parent", parent).with("head", head);
                findings.push(error(revision, message, text::graph::MEND_SEVERAL_HEADS).at(place.clone()));
            }
        }
    }
}

/// A folder that sorts by date should tell the order of the history.
fn dates(lineage: &Lineage<'_>, convention: &Convention, findings: &mut Vec<Finding>) {
    if convention.naming != Naming::DateFirst {
        return;
    }
    for (id, revision) in &lineage.by_id {
        let Some(own) = date(&stem(revision)) else { continue };
        let later = lineage.parents(id).iter().find(|parent| {
            lineage
                .by_id
                .get(*parent)
                .and_then(|parent| date(&stem(parent)))
                .is_some_and(|parent| parent > own)
        });
        if let Some(parent) = later {
            let message = text::graph::DATED_BEFORE_PARENT.with("parent", parent);
            let finding = Finding::new(Severity::Note, subject(revision), message).at(revision.first_line());
            findings.push(finding.mended_by(text::graph::MEND_DATED_BEFORE_PARENT));
        }
    }
}

/// Tables that a revision changes and that neither it nor any other creates.
fn tables(lineage: &Lineage<'_>, findings: &mut Vec<Finding>) {
    let created: BTreeSet<&str> = lineage
        .by_id
        .values()
        .flat_map(|revision| &revision.creates)
        .map(|touch| touch.table.as_str())
        .collect();
    // Where a revision runs what its text does not tell, any table may come from there.
    if lineage.by_id.values().any(|revision| revision.opaque) {
        return;
    }
    let mut reported = BTreeSet::new();
    let empty_base = lineage
        .bases()
        .into_iter()
        .find(|base| base.upgrade.as_ref().is_some_and(|up| up.kind == BodyKind::Empty));
    let mut missing = Vec::new();
    for revision in lineage.by_id.values() {
        for touch in &revision.expects {
            if !created.contains(touch.table.as_str()) && reported.insert(touch.table.as_str()) {
                missing.push((*revision, touch));
            }
        }
    }
    if let (Some(base), false) = (empty_base, missing.is_empty()) {
        let tables: Vec<&str> = missing.iter().map(|(_, touch)| touch.table.as_str()).take(8).collect();
        let message =
            text::graph::EMPTY_BASELINE.with("count", missing.len()).with("tables", tables.join(", "));
        let place = base.upgrade.as_ref().map(|up| up.place.clone()).unwrap_or_else(|| base.place());
        findings.push(error(base, message, text::graph::MEND_EMPTY_BASELINE).at(place));
        return;
    }
    for (revision, touch) in missing {
        let message = text::graph::TABLE_NOBODY_CREATES.with("table", &touch.table);
        findings
            .push(error(revision, message, text::graph::MEND_TABLE_NOBODY_CREATES).at(touch.place.clone()));
    }
}
