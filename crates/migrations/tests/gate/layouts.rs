//! Projects that are laid out otherwise: Alembic's settings in `pyproject.toml`, revisions in several folders, an
//! asynchronous `env.py`.

use std::fs;

use obyra_migrations::gate::{Scope, Verdict};

use crate::support::Project;
use crate::{NO_USERS, Options, USERS, gated_with, on_main, rules};

const INDEX: &str = "with op.get_context().autocommit_block():
    op.create_index('users_name', 'users', ['name'], postgresql_concurrently=True)";
const NO_INDEX: &str = "with op.get_context().autocommit_block():
    op.drop_index('users_name', 'users', postgresql_concurrently=True)";

/// The first revision is on main, the second, in the other folder, is the branch's. `env.py` imports from `src`.
#[tokio::test]
async fn settings_in_pyproject_and_revisions_in_two_folders() {
    let env = include_str!("../support/env.py").replace("{before}", "pass").replace("{options}", "");
    let project = Project::with_env_file(&format!("import shop\n{env}"));
    let write = |file: &str, text: &str| {
        let file = project.path().join(file);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a file");
    };
    write("src/shop.py", "");
    let settings = "[tool.alembic]\nscript_location = '%(here)s/migrations'\nprepend_sys_path = ['src']\n\
                    version_locations = ['%(here)s/migrations/versions', 'src/billing/versions']\n";
    write("pyproject.toml", settings);
    let project = project.revision_of("one", &[], USERS, NO_USERS);
    on_main(&project);
    let project = project.revision_of("two", &["one"], INDEX, NO_INDEX);
    let billing = project.path().join("src/billing/versions");
    fs::create_dir_all(&billing).expect("a folder");
    fs::rename(project.path().join("migrations/versions/two.py"), billing.join("two.py")).expect("moved");

    let options = Options { scope: Some(Scope::Branch), ..Options::default() };
    let report = gated_with(&project, &options).await.unwrap();
    assert_eq!(rules(&report), Vec::<String>::new());
    assert_eq!(report.revisions.len(), 2);
    assert!(report.checked_branch && report.checked.contains("two"), "{:?}", report.checked);
    assert_eq!(report.downgrade, Verdict::Passed);
}

/// The template `multidb` gives each function the name of the database.
#[tokio::test]
async fn revisions_with_an_argument() {
    let env = include_str!("../support/env.py").replace("{before}", "pass").replace("{options}", "");
    let env = env.replace("run_migrations()", "run_migrations(engine_name='main')");
    let project = Project::with_env_file(&env).revision_of("one", &[], USERS, NO_USERS);
    let file = project.path().join("migrations/versions/one.py");
    let text = fs::read_to_string(&file).expect("a revision").replace("grade():", "grade(engine_name):");
    fs::write(&file, text).expect("a revision");
    let report = gated_with(&project, &Options::default()).await.unwrap();
    assert_eq!((rules(&report), report.downgrade), (Vec::new(), Verdict::Passed));
}

fn requiring(project: &Project, packages: &[&str]) -> Options {
    let file = project.path().join("requirements.txt");
    fs::write(&file, packages.join("\n") + "\n").expect("a file");
    Options { requirements: Some(file), ..Options::default() }
}

/// Many an application has stayed with SQLAlchemy 1.4, whose connections cannot roll back by themselves.
#[tokio::test]
async fn an_older_sqlalchemy() {
    let project = Project::with_env("pass", ", transaction_per_migration=True")
        .revision_of("one", &[], USERS, NO_USERS)
        .revision_of("two", &["one"], INDEX, NO_INDEX)
        .revision("three", &["two"], "op.execute('ALTER TABLE users ADD a text')");
    let packages = [
        "alembic==1.8.1",
        "sqlalchemy==1.4.54",
        "psycopg2-binary==2.9.13",
        "mako==1.4.3",
        "markupsafe==3.0.4",
    ];
    let report = gated_with(&project, &requiring(&project, &packages)).await.unwrap();
    assert_eq!(rules(&report), ["gate.downgrade-empty three.py:12"]);
    assert_eq!((report.upgrade, report.revisions.len()), (Verdict::Passed, 3));
}

/// The template `async` of Alembic, where asyncpg is the only driver.
#[tokio::test]
async fn an_asynchronous_env() {
    let env = "import asyncio, os
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import create_async_engine

def migrate(connection):
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine(os.environ['DATABASE_URL'], poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()

asyncio.run(main())
";
    let project = Project::with_env_file(env)
        .revision_of("one", &[], USERS, NO_USERS)
        .revision_of("two", &["one"], INDEX, NO_INDEX)
        .revision_of(
            "three",
            &["two"],
            "op.execute('ALTER TABLE users ADD a text')",
            "op.execute('ALTER TABLE users DROP a')",
        )
        .revision("four", &["three"], "op.execute('ALTER TABLE users ADD b text')");
    let support = include_str!("../support/requirements.txt");
    let others = support.lines().filter(|line| !line.starts_with("psycopg"));
    let requirements: Vec<&str> = others.chain(["asyncpg==0.32.0", "greenlet==3.5.5"]).collect();
    let options = requiring(&project, &requirements);
    let report = gated_with(&project, &options).await.unwrap();
    assert_eq!(rules(&report), ["gate.downgrade-empty four.py:12"]);
    assert_eq!((report.upgrade, report.revisions.len()), (Verdict::Passed, 4));
}
