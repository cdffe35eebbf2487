//! Extensions and settings of the server.

use obyra_evidence::{Code, Finding, Severity, text};

use super::context::Context;
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::observe::ServerSetting;
use crate::quote::{ident, literal, split_list};
use crate::target::Provider;

const LIBRARIES: &str = "shared_preload_libraries";

/// Plans the extensions.
pub(crate) fn extensions(context: &Context<'_>, drafts: &mut Drafts) {
    let observed = context.observed;
    let free = context.target.provider.admin_role().is_some() || context.is_superuser();
    for extension in context.policy.extensions.iter().filter(|e| !observed.extensions.contains(e)) {
        let subject = format!("extension {extension}");
        let statement = format!("CREATE EXTENSION {}{}", ident(extension), home(context));
        match observed.available_extensions.get(extension) {
            None => {
                let message = text::access::EXTENSION_UNAVAILABLE.with("extension", extension);
                drafts.find(Finding::new(Severity::Error, subject, message));
            }
            Some(false) if !free => {
                let message = text::access::EXTENSION_SUPERUSER.with("extension", extension);
                let mend = text::access::MEND_SUPERUSER.with("sql", statement);
                drafts.find(Finding::new(Severity::Error, subject, message).mended_by(mend));
            }
            Some(_) => {
                let reason = text::access::EXTENSION_MISSING.with("extension", extension);
                drafts.add(Step::new(Phase::Extensions, reason, subject).sql(statement));
            }
        }
    }
}

/// Where extensions live: in `public` as everybody expects, or in the first managed schema.
fn home(context: &Context<'_>) -> String {
    let public = context.observed.schema("public").map(|s| s.name.as_str());
    match public.or(context.schemas.first().map(|s| s.name)) {
        Some(schema) => format!(" WITH SCHEMA {}", ident(schema)),
        None => String::new(),
    }
}

/// Plans the settings of the server.
pub(crate) fn settings(context: &Context<'_>, drafts: &mut Drafts) {
    for (name, wanted) in &context.policy.settings {
        let name = name.to_lowercase();
        let subject = format!("setting {name}");
        let Some(now) = context.observed.settings.get(&name) else {
            drafts.find(not_seen(context, &name, subject));
            continue;
        };
        let Some(value) = difference(&name, now, &wanted.0) else { continue };
        if now.pending_restart {
            let message = text::access::WAITS_FOR_RESTART.with("setting", &name).with("value", &wanted.0);
            drafts.find(Finding::new(Severity::Warning, subject, message));
            continue;
        }
        let message = text::access::SERVER_SETTING_DIFFERS
            .with("setting", &name)
            .with("value", &value)
            .with("now", &now.value);
        if !context.is_superuser() || !is_settable(context, now) {
            let mend = mend(context, &name, &value);
            drafts.find(Finding::new(Severity::Warning, subject, message).mended_by(mend));
            continue;
        }
        let restart = now.context == "postmaster";
        let step = Step::new(Phase::ServerSettings, message, &subject)
            .risk(if restart { Risk::None } else { Risk::MayBreak })
            .sql(format!("ALTER SYSTEM SET {} = {}", ident(&name), written(&name, &value)));
        drafts.add(step);
        if restart {
            let message = text::access::NEEDS_RESTART.with("setting", &name);
            drafts.find(Finding::new(Severity::Note, subject, message));
        }
    }
}

/// A setting that is not there, or that the connected role may not see: pg_settings hides some.
fn not_seen(context: &Context<'_>, name: &str, subject: String) -> Finding {
    if context.is_superuser() {
        return Finding::new(
            Severity::Error,
            subject,
            text::access::SERVER_SETTING_UNKNOWN.with("setting", name),
        );
    }
    let me = context.name(context.observed.server.current_role);
    Finding::new(Severity::Warning, subject, text::access::SERVER_SETTING_HIDDEN.with("setting", name))
        .mended_by(text::access::SERVER_SETTING_HIDDEN_MEND.with("role", ident(&me)))
}

/// The value to set, where the present one is not as wanted.
fn difference(name: &str, now: &ServerSetting, wanted: &str) -> Option<String> {
    if name == LIBRARIES {
        let mut loaded = split_list(&now.value).unwrap_or_default();
        let wanted = split_list(wanted).unwrap_or_default();
        let missing: Vec<String> = wanted.into_iter().filter(|w| !loaded.contains(w)).collect();
        if missing.is_empty() {
            return None;
        }
        loaded.extend(missing);
        return Some(loaded.join(", "));
    }
    let same = now.value == wanted
        || boolean(&now.value).is_some() && boolean(&now.value) == boolean(wanted)
        || now.unit.as_deref().is_some_and(|unit| {
            let now = now.value.parse::<f64>().ok();
            now.is_some() && now == in_unit(wanted, unit)
        });
    (!same).then(|| wanted.to_owned())
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// A value such as `64MB` or `30s`, in a setting's own unit such as `8kB` or `ms`.
fn in_unit(text: &str, unit: &str) -> Option<f64> {
    let (number, own) = scale(unit)?;
    let at = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-'))).unwrap_or(text.len());
    let value: f64 = text[..at].parse().ok()?;
    let given = text[at..].trim();
    if given.is_empty() {
        return Some(value);
    }
    let (_, factor) = scale(given)?;
    Some(value * factor / (number * own))
}

/// A unit as a number of base units: `8kB` is 8 times 1,024 bytes, `ms` is a thousandth of a second.
fn scale(unit: &str) -> Option<(f64, f64)> {
    let at = unit.find(|c: char| !c.is_ascii_digit())?;
    let number = if at == 0 { 1.0 } else { unit[..at].parse().ok()? };
    let factor = match &unit[at..] {
        "B" => 1.0,
        "kB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        "TB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Some((number, factor))
}

fn written(name: &str, value: &str) -> String {
    match split_list(value).filter(|_| name == LIBRARIES) {
        Some(names) => names.iter().map(|n| literal(n)).collect::<Vec<_>>().join(", "),
        None => literal(value),
    }
}

/// Whether `ALTER SYSTEM` can change it at all, and is ours to use.
fn is_settable(context: &Context<'_>, now: &ServerSetting) -> bool {
    context.target.provider.admin_role().is_none() && now.context != "internal"
}

fn mend(context: &Context<'_>, name: &str, value: &str) -> obyra_evidence::Message {
    let code: Code = match context.target.provider {
        Provider::Rds => text::access::MEND_PARAMETER_GROUP,
        Provider::CloudSql => text::access::MEND_DATABASE_FLAG,
        Provider::SelfHosted | Provider::Embedded => {
            let sql = format!("ALTER SYSTEM SET {} = {}", ident(name), written(name, value));
            return text::access::MEND_SUPERUSER.with("sql", sql);
        }
    };
    code.with("setting", name).with("value", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(value: &str, unit: Option<&str>) -> ServerSetting {
        let (value, unit) = (value.to_owned(), unit.map(str::to_owned));
        ServerSetting { value, unit, context: "sighup".to_owned(), pending_restart: false }
    }

    #[test]
    fn values_are_compared_by_meaning() {
        assert_eq!(difference("ssl", &setting("on", None), "true"), None);
        assert_eq!(difference("work_mem", &setting("65536", Some("kB")), "64MB"), None);
        assert_eq!(difference("shared_buffers", &setting("16384", Some("8kB")), "128MB"), None);
        assert_eq!(difference("lock_timeout", &setting("10000", Some("ms")), "10s"), None);
        assert_eq!(difference("lock_timeout", &setting("10000", Some("ms")), "10000"), None);
        assert!(difference("lock_timeout", &setting("0", Some("ms")), "10s").is_some());
        let loaded = setting("auto_explain", None);
        assert_eq!(difference(LIBRARIES, &loaded, "auto_explain"), None);
        assert_eq!(
            difference(LIBRARIES, &loaded, "pg_stat_statements").unwrap(),
            "auto_explain, pg_stat_statements"
        );
    }
}
