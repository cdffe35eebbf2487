//! How an environment is reached, and what may be done to it there.

use obyra_evidence::text;
use obyra_postgres::Conninfo;

use super::{Remark, Scene};
use crate::environment::{Declaration, RunsOn, Stage};
use crate::path::Path;

pub(super) fn check(scene: &Scene<'_>, all: &[Scene<'_>], remarks: &mut Vec<Remark>) {
    let Some(own) = scene.own else { return };
    ways(own, remarks);
    literal_url(own, remarks);
    one_database_each(scene, own, all, remarks);
    only_in_development(scene, own, remarks);
    networks(scene, own, remarks);
}

/// Exactly one way to reach a server, and none for one that we start ourselves.
fn ways(own: &Declaration, remarks: &mut Vec<Remark>) {
    let given: Vec<&str> = [
        ("url_env", own.url_env.is_some()),
        ("url_file", own.url_file.is_some()),
        ("url", own.url.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, given)| given.then_some(key))
    .collect();
    match (own.runs_on, given.as_slice()) {
        (RunsOn::Embedded, []) => {}
        (RunsOn::Embedded, keys) => {
            remarks.extend(keys.iter().map(|key| {
                Remark::error(&[key], text::strategy::EMBEDDED_WITH_URL.with("key", key))
                    .mended_by(text::strategy::EMBEDDED_WITH_URL_MEND.with("key", key))
            }));
        }
        (_, []) => remarks.push(
            Remark::error(&["runs_on"], text::strategy::UNREACHABLE)
                .mended_by(text::strategy::UNREACHABLE_MEND)
                .of_absent(Path::top()),
        ),
        (_, [_]) => {}
        (_, [first, others @ ..]) => remarks.extend(others.iter().map(|key| {
            Remark::error(&[key], text::strategy::REACHED_TWICE.with("key", key).with("other", first))
        })),
    }
}

/// A literal connection string is read now, so that its mistakes have a line, and it must not
/// hold a password: the file is meant for a repository. The finding never repeats it.
fn literal_url(own: &Declaration, remarks: &mut Vec<Remark>) {
    let Some(url) = &own.url else { return };
    match Conninfo::parse(url) {
        Ok(conninfo) if conninfo.password().is_some() => remarks.push(
            Remark::error(&["url"], text::strategy::PASSWORD_IN_FILE)
                .mended_by(text::strategy::PASSWORD_IN_FILE_MEND),
        ),
        Ok(_) => {}
        Err(failure) => {
            let mut remark = Remark::error(&["url"], failure.what);
            remark.mend = failure.mend;
            remarks.push(remark);
        }
    }
}

/// What makes two environments one server: the same variable, file or hosts.
#[derive(PartialEq)]
enum Server<'a> {
    Variable(&'a str),
    File(&'a std::path::Path),
    Hosts(String),
}

fn server(own: &Declaration) -> Option<(&'static str, Server<'_>)> {
    if own.runs_on == RunsOn::Embedded {
        return None;
    }
    let variable = own.url_env.as_deref().map(|variable| ("url_env", Server::Variable(variable)));
    let file = own.url_file.as_deref().map(|file| ("url_file", Server::File(file)));
    variable.or(file).or_else(|| {
        let conninfo = Conninfo::parse(own.url.as_deref()?).ok()?;
        Some(("url", Server::Hosts(conninfo.host_summary())))
    })
}

/// Two environments in one database would undo each other; on one server they share roles.
/// Said at the later of the two.
fn one_database_each(scene: &Scene<'_>, own: &Declaration, all: &[Scene<'_>], remarks: &mut Vec<Remark>) {
    let Some((key, mine)) = server(own) else { return };
    let earlier = all.iter().filter(|other| other.position < scene.position);
    for (other, declaration) in earlier.filter_map(|other| Some((other, other.own?))) {
        if server(declaration).is_none_or(|(_, theirs)| theirs != mine) {
            continue;
        }
        remarks.push(if declaration.database == own.database {
            let message = text::strategy::SAME_DATABASE
                .with("environment", scene.name)
                .with("other", other.name)
                .with("database", &own.database);
            Remark::error(&[key], message).mended_by(text::strategy::SAME_DATABASE_MEND)
        } else {
            let message =
                text::strategy::SAME_SERVER.with("environment", scene.name).with("other", other.name);
            Remark::warning(&[key], message)
        });
    }
}

fn only_in_development(scene: &Scene<'_>, own: &Declaration, remarks: &mut Vec<Remark>) {
    let stage = scene.stage();
    if stage == Stage::Development {
        return;
    }
    if own.recreate {
        remarks.push(
            Remark::error(&["recreate"], text::strategy::RECREATE_REFUSED.with("environment", scene.name))
                .mended_by(text::strategy::STAGE_MEND),
        );
    }
    if own.runs_on == RunsOn::Embedded {
        remarks.push(
            Remark::error(&["runs_on"], text::strategy::EMBEDDED_REFUSED.with("environment", scene.name))
                .mended_by(text::strategy::STAGE_MEND),
        );
    }
    if !scene.sections.security.require_tls {
        let message = text::strategy::TLS_NOT_REQUIRED.with("environment", scene.name);
        remarks.push(Remark::error(&["security", "require_tls"], message));
    }
}

fn networks(scene: &Scene<'_>, own: &Declaration, remarks: &mut Vec<Remark>) {
    if scene.stage() == Stage::Development {
        return;
    }
    for (index, network) in own.networks.iter().enumerate() {
        if network.is_everywhere() {
            let message = text::strategy::NETWORK_EVERYWHERE.with("network", network);
            remarks.push(Remark::warning(&["networks", &index.to_string()], message));
        }
    }
}
