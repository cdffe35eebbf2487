//! Where the web application starts: the files that make it, or those that the deployment names.

use std::collections::BTreeSet;
use std::path::Path;

use super::facts::{Role, ScopeKind};
use super::project::{Project, Purpose};

/// Files that say how the application is started.
const DEPLOYMENTS: [&str; 18] = [
    "Procfile",
    "Dockerfile",
    "docker-compose.yml",
    "docker-compose.yaml",
    "compose.yml",
    "compose.yaml",
    ".flaskenv",
    "railway.toml",
    "railway.json",
    "nixpacks.toml",
    "render.yaml",
    "fly.toml",
    "app.yaml",
    "gunicorn.conf.py",
    "start.sh",
    "run.sh",
    "entrypoint.sh",
    "uwsgi.ini",
];
/// The text of a file beside the application, by its name.
pub(super) type Beside<'a> = &'a dyn Fn(&str) -> Option<String>;

const SIZE_MAX: u64 = 256 * 1024;

/// The files that the start of the application loads first.
///
/// Where the deployment names them, an older application that lies beside them starts nothing.
pub(super) fn of(project: &Project, beside: Beside<'_>) -> BTreeSet<usize> {
    let made: BTreeSet<usize> = (0..project.modules.len()).filter(|at| makes(project, *at)).collect();
    let named: BTreeSet<usize> = DEPLOYMENTS
        .iter()
        .filter_map(|name| beside(name))
        .flat_map(|text| named_in(project, &text))
        .filter(|at| project.purposes[*at] != Purpose::Test)
        .collect();
    if named.is_empty() { made } else { named }
}

fn makes(project: &Project, at: usize) -> bool {
    let module = &project.modules[at];
    let name = module.source.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let factory = module.scopes.iter().any(|scope| {
        scope.kind == ScopeKind::Function && scope.role == Role::Startup && scope.name.ends_with("app")
    });
    let makes = module.makes_app.iter().any(|scope| module.scopes[*scope as usize].kind != ScopeKind::Main);
    let starts = makes || factory || matches!(name, "wsgi" | "asgi");
    starts && project.purposes[at] == Purpose::Application
}

/// Reads a deployment's file, if it is there and of a reasonable size.
pub(super) fn read(file: &Path) -> Option<String> {
    let size = std::fs::metadata(file).ok()?.len();
    (size <= SIZE_MAX).then(|| std::fs::read_to_string(file).ok()).flatten()
}

/// The modules that a text names as `module:application`, `FLASK_APP=module`, `--app module`.
fn named_in(project: &Project, text: &str) -> BTreeSet<usize> {
    let separators = |c: char| c.is_whitespace() || "\"'=,[]()".contains(c);
    let words: Vec<&str> = text.split(separators).filter(|word| !word.is_empty()).collect();
    let mut named = BTreeSet::new();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", |before| words[before]);
        let after_option = matches!(before, "FLASK_APP" | "FLASK_APP:" | "--app" | "-A");
        let module = match word.split_once(':') {
            Some((module, application)) if is_identifier(application) => module,
            None if after_option => word.trim_end_matches(".py"),
            _ => continue,
        };
        let dotted = module.replace('/', ".");
        if dotted.split('.').all(is_identifier) {
            let found = (0..project.modules.len()).find(|at| {
                let file = project.modules[*at].source.file.with_extension("");
                let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
                let wanted: Vec<_> = dotted.split('.').collect();
                let parts = parts.strip_suffix(&["__init__".into()]).unwrap_or(&parts);
                parts.len() >= wanted.len() && parts[parts.len() - wanted.len()..].iter().eq(wanted.iter())
            });
            named.extend(found);
        }
    }
    named
}

fn is_identifier(text: &str) -> bool {
    let text = text.trim_end_matches("()");
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}
