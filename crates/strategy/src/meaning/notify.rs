//! Names that must lead to people, places and environments that exist.

use obyra_evidence::{Code, text};

use super::{Remark, Scene};
use crate::environment::Stage;
use crate::sections::alerts::ChannelKind;
use crate::shape::nearest;

pub(super) fn check(scene: &Scene<'_>, all: &[Scene<'_>], remarks: &mut Vec<Remark>) {
    channels(scene, remarks);
    source_of_copies(scene, all, remarks);
    for (index, waiver) in scene.sections.waivers.iter().enumerate() {
        let Some(name) = &waiver.environment else { continue };
        if !all.iter().any(|other| other.name == name) {
            let path = ["waivers", &index.to_string(), "environment"];
            let known = all.iter().map(|other| other.name);
            remarks.push(unknown(&path, text::strategy::ENVIRONMENT_UNKNOWN, name, known));
        }
    }
}

fn channels(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let alerts = &scene.sections.alerts;
    let told = [
        (vec!["alerts", "notify"], &alerts.notify),
        (vec!["secrets", "rotation", "notify"], &scene.sections.secrets.rotation.notify),
    ];
    for (path, names) in told {
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !alerts.channels.contains_key(*name))
        {
            let known = alerts.channels.keys().map(String::as_str);
            let position = index.to_string();
            let path = [path.as_slice(), &[position.as_str()]].concat();
            remarks.push(unknown(&path, text::strategy::CHANNEL_UNKNOWN, name, known));
        }
    }
    for (name, channel) in &alerts.channels {
        let missing = match channel.kind {
            ChannelKind::Email => channel.to.is_empty().then_some("to"),
            _ => channel.url_env.is_none().then_some("url_env"),
        };
        if let Some(key) = missing {
            let message = text::strategy::CHANNEL_LACKS.with("name", name).with("key", key);
            remarks.push(Remark::error(&["alerts", "channels", name], message));
        }
    }
}

fn source_of_copies(scene: &Scene<'_>, all: &[Scene<'_>], remarks: &mut Vec<Remark>) {
    let Some(from) = &scene.sections.anonymize.from else { return };
    let path = ["anonymize", "from"];
    if !all.iter().any(|other| other.name == from) {
        let known = all.iter().map(|other| other.name);
        remarks.push(unknown(&path, text::strategy::ENVIRONMENT_UNKNOWN, from, known));
    } else if scene.name == from {
        remarks.push(Remark::error(&path, text::strategy::COPY_ONTO_ITSELF.with("environment", from)));
    } else if scene.stage() == Stage::Production {
        let message = text::strategy::COPY_INTO_PRODUCTION.with("environment", scene.name);
        remarks.push(Remark::error(&path, message));
    }
}

/// A name that nothing defines, with those that exist.
pub(super) fn unknown<'n, P: ToString>(
    path: &[P],
    code: Code,
    name: &str,
    known: impl Iterator<Item = &'n str>,
) -> Remark {
    let known: Vec<&str> = known.collect();
    let listed = if known.is_empty() { "-".to_owned() } else { known.join(", ") };
    let remark = Remark::error(path, code.with("name", name).with("known", listed));
    match nearest(name, known.into_iter()) {
        Some(meant) => remark.mended_by(text::strategy::DID_YOU_MEAN.with("name", format!("{meant:?}"))),
        None => remark,
    }
}
