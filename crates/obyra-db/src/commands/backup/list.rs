//! `backup list`: the backups as a timeline that people can read.

use std::fmt::Write as _;

use jiff::Timestamp;
use obyra_backup::holdings::{Holdings, Kept, Reach};
use obyra_backup::repository::manifest::Header;
use obyra_backup::retention::{self, Decision, Verdict};
use obyra_evidence::{Exit, Failure, HumanBytes, Language, Message, text};
use serde_json::{Value, json};

use crate::environment::Opened;
use crate::repository;

/// How wide the bar of the largest backup is, in characters.
const BAR: usize = 16;

/// Prints what the repository holds of the environment's cluster. Ends with 2 where nothing
/// could be restored, or one of them could not.
pub async fn list(opened: &Opened<'_>) -> Result<Exit, Failure> {
    let Some(repository) = repository::existing(opened).await? else {
        opened.invocation.printer.note(text::backup::NONE_YET.with("environment", opened.name()));
        return Ok(Exit::Findings);
    };
    let mut all = Vec::new();
    for cluster in repository::clusters_of(opened, &repository).await? {
        all.push(Holdings::read(&repository, cluster).await?);
    }
    let adopted = super::adopted(opened).await;
    if opened.invocation.printer.json {
        let clusters: Vec<Value> = all.iter().map(|holdings| document(opened, holdings)).collect();
        opened.invocation.printer.json(&json!({
            "environment": opened.name(),
            "repository": repository.store.url(),
            "clusters": clusters,
            "pgbackrest": adopted.as_ref().map(|adopted| adopted.as_ref().map_err(ToString::to_string)),
        }));
    } else {
        for holdings in &all {
            let page = Page { opened, holdings, language: opened.invocation.printer.language };
            opened.invocation.printer.data(&page.text(repository.store.url()));
        }
        if let Some(adopted) = adopted {
            opened.invocation.printer.line(super::told_of_adopted(opened, &adopted?));
        }
    }
    let well = all.last().is_some_and(|holdings| holdings.newest().is_some()) && all.iter().all(is_whole);
    Ok(if well { Exit::Done } else { Exit::Findings })
}

/// Whether all that is there can be read and restored, with every page sound.
fn is_whole(holdings: &Holdings) -> bool {
    let sound = |kept: &Kept| kept.is_restorable() && kept.header.damaged.is_empty();
    holdings.unreadable.is_empty() && holdings.backups.iter().all(sound)
}

struct Page<'a> {
    opened: &'a Opened<'a>,
    holdings: &'a Holdings,
    language: Language,
}

impl Page<'_> {
    fn say(&self, message: impl Into<Message>) -> String {
        message.into().say(self.language)
    }

    fn text(&self, store: &str) -> String {
        let policy = &self.opened.environment.backup;
        let decision = retention::decide(&self.holdings.held(), policy, self.opened.now());
        let mut out = String::new();
        let told = text::backup::LIST_CLUSTER.with("cluster", self.holdings.cluster).with("store", store);
        let _ = writeln!(out, "{}", self.say(told));
        self.reaches(&mut out);
        let _ = writeln!(out);
        let largest = self.holdings.backups.iter().map(|kept| kept.header.totals.stored).max().unwrap_or(1);
        for (kept, verdict) in in_order(self.holdings, &decision) {
            self.backup(&mut out, kept, verdict, largest.max(1));
        }
        for (id, failure) in &self.holdings.unreadable {
            let _ = writeln!(out, "  ✗ {id}  {}", self.say(failure.what.clone()));
        }
        for claim in &self.holdings.claims {
            let told =
                if claim.is_alive() { text::backup::LIST_RUNNING } else { text::backup::LIST_INTERRUPTED };
            let _ = writeln!(out, "  … {}  {}", claim.backup, self.say(told));
        }
        for hole in self.holdings.holes(&decision.wal) {
            let told = text::backup::LIST_HOLE
                .with("timeline", hole.timeline)
                .with("from", hole.from)
                .with("to", hole.to);
            let _ = writeln!(out, "  ┊ {}", self.say(told));
        }
        let _ = write!(out, "\n{}", self.totals());
        out
    }

    fn reaches(&self, out: &mut String) {
        let reaches = self.holdings.reaches();
        if reaches.is_empty() {
            let _ = writeln!(out, "{}", self.say(text::backup::LIST_NOTHING));
        }
        for reach in reaches {
            let _ = writeln!(out, "{}", self.say(reach_told(&reach)));
        }
    }

    fn backup(&self, out: &mut String, kept: &Kept, verdict: Option<&Verdict>, largest: u64) {
        let header = &kept.header;
        let stored = header.totals.stored;
        let bar = (stored as f64 / largest as f64 * BAR as f64).ceil() as usize;
        let mark = match (kept.is_restorable(), header.damaged.is_empty()) {
            (false, _) => "✗",
            (true, false) => "!",
            (true, true) => "●",
        };
        let _ = write!(
            out,
            "  {mark} {}  {}  {:<BAR$}  {:>7} / {:<7}",
            minute(header.stopped),
            header.id,
            "█".repeat(bar.clamp(1, BAR)),
            HumanBytes(stored).to_string(),
            HumanBytes(header.totals.bytes).to_string(),
        );
        let policy = &self.opened.environment.backup;
        let reasons: Vec<String> = match verdict {
            Some(verdict) => verdict.kept.iter().map(|reason| self.say(reason.message(policy))).collect(),
            None => Vec::new(),
        };
        let reasons =
            if reasons.is_empty() { self.say(text::backup::LIST_EXPIRES) } else { reasons.join("; ") };
        let _ = writeln!(out, "  {reasons}");
        for hole in &kept.missing {
            let told = text::backup::LIST_WAL_MISSING.with("from", hole.from).with("to", hole.to);
            let _ = writeln!(out, "      {}", self.say(told));
        }
        if let Some(told) = changed_told(header) {
            let _ = writeln!(out, "      {}", self.say(told));
        }
        if let Some(told) = damaged_told(header) {
            let _ = writeln!(out, "      {}", self.say(told));
        }
    }

    fn totals(&self) -> String {
        let stored: u64 = self.holdings.backups.iter().map(|kept| kept.header.totals.stored).sum();
        let wal: u64 = self.holdings.wal.timelines().values().map(|timeline| timeline.stored).sum();
        self.say(
            text::backup::LIST_TOTALS
                .with("count", self.holdings.backups.len())
                .with("stored", HumanBytes(stored))
                .with("wal", HumanBytes(wal)),
        )
    }
}

/// The damaged pages of a cluster in words, if a backup found any.
pub fn damaged_told(header: &Header) -> Option<Message> {
    let first = header.damaged.first()?;
    let told = text::backup::LIST_DAMAGED.with("count", header.damaged.len());
    Some(told.with("path", &first.path).with("block", first.block))
}

/// That only changed blocks were read for a backup, in words.
pub fn changed_told(header: &Header) -> Option<Message> {
    let changed = header.changed_only?;
    let told = text::backup::LIST_CHANGED_ONLY.with("received", HumanBytes(changed.received));
    Some(told.with("when", second(changed.all_read)))
}

/// A span of time in words.
pub fn reach_told(reach: &Reach) -> Message {
    if reach.from == reach.to {
        return text::backup::LIST_INSTANT.with("at", second(reach.from));
    }
    text::backup::LIST_REACH.with("from", second(reach.from)).with("to", second(reach.to))
}

fn in_order<'a>(holdings: &'a Holdings, decision: &'a Decision) -> Vec<(&'a Kept, Option<&'a Verdict>)> {
    let verdict = |kept: &Kept| decision.verdicts.iter().find(|verdict| verdict.id == kept.header.id);
    holdings.backups.iter().map(|kept| (kept, verdict(kept))).collect()
}

fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn document(opened: &Opened<'_>, holdings: &Holdings) -> Value {
    let decision = retention::decide(&holdings.held(), &opened.environment.backup, opened.now());
    let backups: Vec<Value> = in_order(holdings, &decision)
        .into_iter()
        .map(|(kept, verdict)| {
            json!({
                "backup": kept.header,
                "restorable": kept.is_restorable(),
                "wal_missing": kept.missing,
                "kept": verdict.map(|verdict| &verdict.kept),
            })
        })
        .collect();
    let wal: Vec<Value> = holdings
        .wal
        .timelines()
        .iter()
        .map(|(timeline, of)| json!({ "timeline": timeline.0, "stretches": of.stretches, "stored": of.stored }))
        .collect();
    let unreadable: Vec<Value> = holdings
        .unreadable
        .iter()
        .map(|(id, failure)| json!({ "backup": id, "why": failure.to_string() }))
        .collect();
    json!({
        "cluster": holdings.cluster.to_string(),
        "backups": backups,
        "unreadable": unreadable,
        "reaches": holdings.reaches(),
        "wal": wal,
        "holes": holdings.holes(&decision.wal),
    })
}
