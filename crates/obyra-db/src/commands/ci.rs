//! `migrate ci-template` writes the workflow of a CI server, and `migrate flask-commands` the commands of `flask db`:
//! files that are the team's own from then on.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use obyra_evidence::{Exit, Failure, Message, text};
use obyra_strategy::{Environment, Reach, Store, Strategy};

use crate::commands::gate::strictest;
use crate::invocation::Invocation;
use crate::printer::Printer;

const GITHUB: &str = include_str!("../../templates/github.yml");
const GITLAB: &str = include_str!("../../templates/gitlab.yml");
/// The example application has it as it is written.
const FLASK: &str = include_str!("../../../../examples/obyra-mini/obyra_mini/database_commands.py");
const FLASK_FILE: &str = "database_commands.py";

/// Actions by commit, since a tag can be moved.
const ACTIONS: [(&str, &str); 5] = [
    ("@CHECKOUT@", "3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"),
    ("@SETUP_PYTHON@", "5fda3b95a4ea91299a34e894583c3862153e4b97 # v7.0.0"),
    ("@CACHE@", "27d5ce7f107fe9357f9df03efb73ab90386fccae # v5.0.5"),
    ("@UPLOAD_SARIF@", "8aad20d150bbac5944a9f9d289da16a4b0d87c1e # v4.36.2"),
    ("@UPLOAD_ARTIFACT@", "bbbca2ddaa5d8feaa63e36b76fdaad77386f024f # v7.0.0"),
];

/// Arguments of `migrate ci-template`.
#[derive(Args, Debug)]
pub struct CiTemplate {
    /// The CI server
    #[arg(value_enum)]
    pub server: Server,
    /// The environment that is deployed; default: production
    pub environment: Option<String>,
    #[command(flatten)]
    pub whereto: Whereto,
}

/// Arguments of `migrate flask-commands`.
#[derive(Args, Debug)]
pub struct FlaskCommands {
    #[command(flatten)]
    pub whereto: Whereto,
}

/// What becomes of the text.
#[derive(Args, Clone, Copy, Debug)]
pub struct Whereto {
    /// Print it; write nothing
    #[arg(long, conflicts_with = "force")]
    pub print: bool,
    /// Write over a file that says something else
    #[arg(long)]
    pub force: bool,
}

/// CI servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Server {
    /// .github/workflows/database.yml
    Github,
    /// .gitlab-ci.yml
    Gitlab,
}

/// Writes the workflow.
pub fn ci_template(
    invocation: &Invocation,
    strategy: &Strategy,
    arguments: &CiTemplate,
) -> Result<Exit, Failure> {
    let environment = match &arguments.environment {
        Some(name) => Some(strategy.environment(name)?),
        None => strictest(strategy),
    };
    let Some(environment) = environment else { return Ok(Exit::Done) };
    let root = root(&strategy.folder);
    let (template, name) = match arguments.server {
        Server::Github => (GITHUB, ".github/workflows/database.yml"),
        Server::Gitlab => (GITLAB, ".gitlab-ci.yml"),
    };
    let workflow = fill(template, arguments.server, strategy, (environment, &root))?;
    let next = match arguments.server {
        Server::Github => text::ci::NEXT_GITHUB,
        Server::Gitlab => text::ci::NEXT_GITLAB,
    };
    write(
        invocation.printer,
        &root.join(name),
        &workflow,
        (arguments.whereto, next.with("environment", &environment.name)),
    )
}

/// Writes the commands of `flask db`.
pub fn flask_commands(
    invocation: &Invocation,
    strategy: &Strategy,
    arguments: &FlaskCommands,
) -> Result<Exit, Failure> {
    let app = strictest(strategy).and_then(|environment| environment.migrations.app.as_deref());
    let package = app.and_then(|app| app.split(':').next()).unwrap_or_default().replace('.', "/");
    let folder = strategy.folder.join(&package);
    let (folder, import) = if !package.is_empty() && folder.join("__init__.py").is_file() {
        (folder, "from . import database_commands")
    } else {
        (strategy.folder.clone(), "import database_commands")
    };
    let next = text::ci::NEXT_FLASK.with("import", import);
    write(invocation.printer, &folder.join(FLASK_FILE), FLASK, (arguments.whereto, next))
}

fn fill(
    template: &str,
    server: Server,
    strategy: &Strategy,
    (environment, root): (&Environment, &Path),
) -> Result<String, Failure> {
    let secrets = secrets(environment)?;
    let config = strategy.file.canonicalize().unwrap_or_else(|_| strategy.file.clone());
    let config = config.strip_prefix(root).unwrap_or(&config).display().to_string();
    let listed: String = secrets.iter().map(|name| format!("#     {name}\n")).collect();
    let given: Vec<String> =
        secrets.iter().map(|name| format!("      {name}: ${{{{ secrets.{name} }}}}")).collect();
    let seeds = environment.seeds.directory_in(&strategy.folder).is_dir();
    let seed = match server {
        _ if !seeds => String::new(),
        Server::Github => "      - name: Seed\n        run: obyra-db seed apply @ENVIRONMENT@ --yes\n".into(),
        Server::Gitlab => "    - obyra-db seed apply @ENVIRONMENT@ --yes\n".into(),
    };
    let mut filled = template
        .replace("@SEED@", &seed)
        .replace("@SECRETS_LISTED@", listed.trim_end())
        .replace("@SECRETS@", &given.join("\n"))
        .replace("@CONFIG@", &serde_json::Value::from(config).to_string())
        .replace("@ENVIRONMENT@", &environment.name);
    for (placeholder, action) in ACTIONS {
        filled = filled.replace(placeholder, action);
    }
    Ok(filled)
}

/// The variables that a deploy of the environment reads: the administrator's connection, and the passwords of the
/// roles that migrate and seed.
fn secrets(environment: &Environment) -> Result<Vec<String>, Failure> {
    let Reach::UrlEnv(url) = &environment.reach else {
        return Err(Failure::usage(text::ci::NO_VARIABLE.with("environment", &environment.name))
            .mended_by(text::ci::MEND_NO_VARIABLE.with("environment", &environment.name)));
    };
    let mut secrets = vec![url.clone()];
    if environment.secrets.store == Store::Env {
        let roles = [&environment.migrations.run_as, &environment.seeds.run_as];
        let variable = |role: &String| environment.secrets.variable_for(&environment.name, role);
        secrets.extend(roles.into_iter().flatten().map(variable));
        secrets.dedup();
    }
    Ok(secrets)
}

/// The repository that a folder is in; the folder itself, if it is in none.
fn root(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|above| above.join(".git").exists());
    found.unwrap_or(folder).to_owned()
}

/// Writes a text, unless somebody's own stands there.
fn write(
    printer: Printer,
    file: &Path,
    content: &str,
    (whereto, next): (Whereto, Message),
) -> Result<Exit, Failure> {
    if whereto.print {
        printer.data(content);
        return Ok(Exit::Done);
    }
    let unusable =
        |e: std::io::Error| Failure::new(text::cli::FILE_UNUSABLE.with("file", file.display())).because(e);
    match fs::read_to_string(file) {
        Ok(found) if found == content => {
            printer.note(text::ci::SAME.with("file", file.display()));
            return Ok(Exit::Done);
        }
        Ok(_) if !whereto.force => {
            return Err(Failure::refused(text::ci::DIFFERS.with("file", file.display()))
                .mended_by(text::ci::MEND_DIFFERS));
        }
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(unusable(e)),
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(unusable)?;
    }
    // Beside it first: whoever reads it meanwhile reads the old one or the new one.
    let fresh = file.with_extension("obyra-db-new");
    fs::write(&fresh, content).and_then(|()| fs::rename(&fresh, file)).map_err(unusable)?;
    printer.note(text::ci::WRITTEN.with("file", file.display()));
    printer.note(next);
    Ok(Exit::Done)
}
