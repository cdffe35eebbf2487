//! Durations that no plan could respect.

use obyra_evidence::text;

use super::{Remark, Scene};
use crate::environment::Stage;
use crate::sections::Every;

pub(super) fn check(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    zero(scene, remarks);
    rotation(scene, remarks);
    recovery_point(scene, remarks);
}

/// Nothing is kept for no time, and nothing happens every zero seconds. (A lock time-out of
/// zero is PostgreSQL's way to wait for ever, and allowed.)
fn zero(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let sections = scene.sections;
    let durations = [
        (["backup", "", "retention"], sections.backup.retention),
        (["backup", "pitr", "window"], sections.backup.pitr.window),
        (["backup", "export", "retention"], sections.backup.export.retention),
        (["secrets", "rotation", "every"], sections.secrets.rotation.every),
        (["monitor", "", "every"], sections.monitor.every),
        (["monitor", "", "sizes_every"], sections.monitor.sizes_every),
        (["monitor", "", "retention"], sections.monitor.retention),
        (["alerts", "", "lock_wait_max"], sections.alerts.lock_wait_max),
    ];
    for (way, _) in durations.iter().filter(|(_, duration)| duration.seconds() == 0) {
        let path: Vec<&str> = way.iter().copied().filter(|key| !key.is_empty()).collect();
        remarks.push(Remark::error(&path, text::strategy::ZERO_DURATION));
    }
}

fn rotation(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let rotation = &scene.sections.secrets.rotation;
    if rotation.notify_before >= rotation.every && rotation.every.seconds() > 0 {
        let message = text::strategy::NOTICE_TOO_EARLY
            .with("notice", rotation.notify_before.short())
            .with("every", rotation.every.short());
        remarks.push(Remark::error(&["secrets", "rotation", "notify_before"], message));
    }
}

/// Without point-in-time recovery, what was written since the last backup is lost.
fn recovery_point(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let backup = &scene.sections.backup;
    let relevant = scene.stage() == Stage::Production && scene.declared.contains("backup") && backup.enabled;
    let Some(rpo) = scene.sections.runbook.rpo.filter(|_| relevant && !backup.pitr.enabled) else { return };
    if rpo.seconds() < seconds(backup.every) {
        let message =
            text::strategy::RPO_UNREACHABLE.with("environment", scene.name).with("rpo", rpo.short());
        remarks.push(
            Remark::warning(&["runbook", "rpo"], message).mended_by(text::strategy::RPO_UNREACHABLE_MEND),
        );
    }
}

/// The least time between two backups, in seconds.
fn seconds(every: Every) -> u64 {
    const DAY: u64 = 86_400;
    match every {
        Every::Hour => 3_600,
        Every::Day => DAY,
        Every::Week => 7 * DAY,
        Every::Month => 28 * DAY,
        Every::Quarter => 90 * DAY,
        Every::Year => 365 * DAY,
    }
}
