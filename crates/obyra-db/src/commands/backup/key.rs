//! `backup key …`: who can open the repository.

use obyra_backup::repository::keys::{Lock, Unlock, Way};
use obyra_evidence::{Exit, Failure, Outcome, text};
use secrecy::SecretString;
use serde_json::json;

use super::{Key, KeyAdd};
use crate::environment::{Opened, Told};
use crate::repository;

/// Runs the verb.
pub async fn key(opened: &Opened<'_>, verb: &Key) -> Result<Exit, Failure> {
    let repository = repository::required(opened).await?;
    let (store, keys) = (&repository.store, &repository.keys);
    let printer = opened.invocation.printer;
    match verb {
        Key::List(_) => list(opened, &keys.ways(store).await?),
        Key::Add(arguments) => {
            opened.can_record()?;
            keys.add(store, &arguments.name, &lock(arguments)?).await?;
            record(opened, "backup.key-add", format!("the way {} was added", arguments.name))?;
            printer.line(text::backup::WAY_ADDED.with("way", &arguments.name));
        }
        Key::Remove { name, .. } => {
            opened.can_record()?;
            keys.remove(store, name).await?;
            record(opened, "backup.key-remove", format!("the way {name} was removed"))?;
            printer.line(text::backup::WAY_REMOVED.with("way", name));
        }
        Key::Rotate(_) => {
            opened.can_record()?;
            let unlock = repository::unlock(opened)?.ok_or_else(|| repository::none_yet(opened))?;
            let rotation = keys.rotate(store, &unlock, opened.now()).await?;
            record(opened, "backup.key-rotate", format!("the key is {} now", rotation.keyring.current()))?;
            printer.line(
                text::backup::KEY_ROTATED
                    .with("key", rotation.keyring.current())
                    .with("ways", rotation.wrapped.join(", ")),
            );
            for way in rotation.left_out {
                printer.line(text::backup::KEY_LEFT_OUT.with("way", way));
            }
        }
    }
    Ok(Exit::Done)
}

fn record(opened: &Opened<'_>, subject: &str, observed: String) -> Result<(), Failure> {
    opened.record(subject, Outcome::Changed, Told::new("who can open the backups is known", observed))
}

fn lock(arguments: &KeyAdd) -> Result<Lock, Failure> {
    if let Some(recipient) = &arguments.recipient {
        return Ok(Lock::Recipient(recipient.clone()));
    }
    let secret = match (&arguments.env, &arguments.file) {
        (Some(variable), _) => repository::secret_of_variable(variable)?,
        (None, Some(file)) => std::fs::read_to_string(file)
            .map(SecretString::from)
            .map_err(|e| Failure::new(text::backup::KEY_FILE.with("file", file.display())).because(e))?,
        (None, None) => SecretString::default(),
    };
    Lock::of(&Unlock::read(secret))
}

fn list(opened: &Opened<'_>, ways: &[Way]) {
    let printer = opened.invocation.printer;
    if printer.json {
        let ways: Vec<_> = ways
            .iter()
            .map(|way| {
                let keys: Vec<String> = way.keys.iter().map(ToString::to_string).collect();
                json!({ "name": way.name, "recipient": way.recipient, "keys": keys, "current": way.current })
            })
            .collect();
        printer.json(&json!({ "ways": ways }));
        return;
    }
    for way in ways {
        let what = if way.current { text::backup::WAY_CURRENT } else { text::backup::WAY_OLD };
        let lock = match &way.recipient {
            Some(recipient) => recipient.clone(),
            None => text::backup::WAY_PASSPHRASE.message().say(printer.language),
        };
        printer.line(what.with("way", &way.name).with("lock", lock).with("count", way.keys.len()));
    }
}
