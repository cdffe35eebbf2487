//! Backups that could not do what the file promises.

use obyra_evidence::{HumanDuration, text};

use super::{Remark, Scene};
use crate::environment::Stage;
use crate::path::Path;

/// The minima of the strategy document, section 5.
const STAGING_RETENTION_MIN: HumanDuration = HumanDuration::from_days(14);
const PRODUCTION_RETENTION_MIN: HumanDuration = HumanDuration::from_days(30);
const PRODUCTION_PITR_MIN: HumanDuration = HumanDuration::from_days(7);

pub(super) fn check(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    if !scene.declared.contains("backup") {
        return;
    }
    let backup = &scene.sections.backup;
    if !backup.enabled {
        if scene.stage() != Stage::Development {
            let message = text::strategy::NO_BACKUP.with("environment", scene.name);
            remarks.push(Remark::warning(&["backup", "enabled"], message));
        }
        return;
    }
    if backup.pitr.enabled && backup.retention < backup.pitr.window {
        remarks.push(
            Remark::error(
                &["backup", "retention"],
                text::strategy::RETENTION_BELOW_PITR
                    .with("environment", scene.name)
                    .with("retention", backup.retention.short())
                    .with("window", backup.pitr.window.short()),
            )
            .mended_by(text::strategy::RETENTION_BELOW_PITR_MEND.with("window", backup.pitr.window.short())),
        );
    }
    minima(scene, remarks);
    export(scene, remarks);
}

fn minima(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let backup = &scene.sections.backup;
    let retention_min = match scene.stage() {
        Stage::Development => return,
        Stage::Staging => STAGING_RETENTION_MIN,
        Stage::Production => PRODUCTION_RETENTION_MIN,
    };
    if backup.retention < retention_min {
        let message = text::strategy::RETENTION_SHORT
            .with("environment", scene.name)
            .with("retention", backup.retention.short())
            .with("min", retention_min.short());
        let retention = Path::keys(["backup", "retention"]);
        remarks.push(Remark::warning(&["backup", "retention"], message).of_absent(retention));
    }
    if scene.stage() != Stage::Production {
        return;
    }
    if !backup.pitr.enabled {
        let message = text::strategy::NO_PITR.with("environment", scene.name);
        remarks.push(Remark::warning(&["backup", "pitr", "enabled"], message));
    } else if backup.pitr.window < PRODUCTION_PITR_MIN {
        let message = text::strategy::PITR_SHORT
            .with("environment", scene.name)
            .with("window", backup.pitr.window.short())
            .with("min", PRODUCTION_PITR_MIN.short());
        remarks.push(Remark::warning(&["backup", "pitr", "window"], message));
    }
}

fn export(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let backup = &scene.sections.backup;
    if !backup.export.enabled {
        return;
    }
    if backup.export.repository.is_none() {
        remarks.push(Remark::error(
            &["backup", "export", "enabled"],
            text::strategy::EXPORT_WITHOUT_PLACE.with("environment", scene.name),
        ));
    }
    if backup.export.repository.is_some() && backup.export.repository == backup.repository {
        remarks
            .push(Remark::warning(&["backup", "export", "repository"], text::strategy::EXPORT_BESIDE_BACKUP));
    }
}
