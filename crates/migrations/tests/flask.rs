//! The example application: Flask, Flask-SQLAlchemy and Flask-Migrate, in an environment made from its
//! own hashed requirements.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::Quiet;
use obyra_migrations::driver::Workplace;
use obyra_migrations::python::Origin;
use obyra_migrations::{Deployed, Deployment, Policy, Unconverged, deploy};
use support::{Database, code, mend, python_for};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/obyra-mini")
}

async fn deploy_app(
    database: &Database,
    project: &Path,
    app: &str,
) -> Result<Deployed, obyra_evidence::Failure> {
    let policy = Policy { app: Some(app.to_owned()), ..Policy::default() };
    let python = python_for(&example()).await;
    let work = Workplace {
        policy: &policy,
        project,
        python: &python,
        target: Some(&database.target),
        hidden_variables: &[],
    };
    deploy(&Deployment { work, admin: &database.admin }, &mut Unconverged, &Quiet).await
}

#[tokio::test]
async fn the_example_application_reaches_its_head() {
    let database = Database::new().await;
    let deployed = deploy_app(&database, &example(), "obyra_mini:create_app").await.unwrap();
    assert!(deployed.from_base && deployed.revisions.len() >= 10, "{deployed:?}");
    assert_eq!(deployed.committed.unwrap().version_table, "app.alembic_version");
    let again = deploy_app(&database, &example(), "obyra_mini:create_app").await.unwrap();
    assert!(again.revisions.is_empty());

    let python = python_for(&example()).await;
    assert_eq!(python.origin, Origin::Cached);
    let litter = example().join("obyra_mini/__pycache__");
    assert!(!litter.exists(), "{} was left behind", litter.display());
}

#[tokio::test]
async fn the_example_application_reaches_its_head_on_every_version() {
    for major in [14, 15, 17, 18] {
        let database = Database::on(major).await;
        let deployed = deploy_app(&database, &example(), "obyra_mini:create_app").await.unwrap();
        assert!(deployed.from_base && deployed.revisions.len() >= 10, "{major}: {deployed:?}");
        assert_eq!(deployed.committed.unwrap().version_table, "app.alembic_version");
    }
}

/// Flask-Migrate reads the revisions within the application's context, and some revisions count on it.
#[tokio::test]
async fn a_revision_that_needs_the_application_is_read_within_it() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("migrations/versions")).unwrap();
    for file in ["env.py", "alembic.ini"] {
        fs::copy(example().join("migrations").join(file), folder.path().join("migrations").join(file))
            .unwrap();
    }
    let app = "import os\nfrom flask import Flask\nfrom flask_migrate import Migrate\nfrom flask_sqlalchemy import SQLAlchemy\n\n\n\
               def create_app():\n    app = Flask(__name__)\n    app.config['SQLALCHEMY_DATABASE_URI'] = os.environ['DATABASE_URL']\n    \
               app.config['LETTERS'] = 7\n    db = SQLAlchemy(app)\n    Migrate(app, db)\n    return app\n";
    fs::write(folder.path().join("application.py"), app).unwrap();
    let revision = "from alembic import op\nfrom flask import current_app\nrevision = 'one'\ndown_revision = None\n\
                    LETTERS = current_app.config['LETTERS']\ndef upgrade():\n    \
                    op.execute(f'CREATE TABLE app.letters (code varchar({LETTERS}))')\n";
    fs::write(folder.path().join("migrations/versions/one.py"), revision).unwrap();
    let deployed = deploy_app(&database, folder.path(), "application:create_app").await.unwrap();
    assert_eq!(deployed.revisions.len(), 1, "{deployed:?}");

    // What keeps the application from being loaded is told, and not that the revision needs it.
    fs::write(folder.path().join("application.py"), format!("import nowhere\n{app}")).unwrap();
    let failure = deploy_app(&database, folder.path(), "application:create_app").await.unwrap_err();
    assert_eq!(code(&failure), "migrations.app-failed", "{failure:?}");
    assert!(failure.to_string().contains("nowhere"), "{failure}");
    assert!(failure.at.as_ref().unwrap().file.ends_with("application.py"), "{failure}");
}

#[tokio::test]
async fn an_application_that_cannot_be_imported_is_named() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("migrations")).unwrap();
    for file in ["env.py", "alembic.ini"] {
        fs::copy(example().join("migrations").join(file), folder.path().join("migrations").join(file))
            .unwrap();
    }
    fs::create_dir(folder.path().join("migrations/versions")).unwrap();
    let revision = "revision = 'one'\ndown_revision = None\ndef upgrade():\n    pass\n";
    fs::write(folder.path().join("migrations/versions/one.py"), revision).unwrap();
    let cases = [
        ("import flask\nimport nowhere\n", "No module named 'nowhere'", "migrations.mend-module-missing"),
        ("import flask\nraise KeyError('SECRET_KEY')\n", "KeyError: 'SECRET_KEY'", "migrations.mend-app"),
        ("import flask\ndef broken(:\n", "SyntaxError", "migrations.mend-app"),
        ("import sys\nsys.exit('no configuration')\n", "no configuration", "migrations.mend-app"),
    ];
    for (source, said, mended) in cases {
        fs::write(folder.path().join("application.py"), source).unwrap();
        let failure = deploy_app(&database, folder.path(), "application:create_app").await.unwrap_err();
        assert_eq!((code(&failure), mend(&failure)), ("migrations.app-failed", mended), "{failure:?}");
        assert!(failure.to_string().contains(said), "{failure}");
        let place = failure.at.unwrap();
        assert!(place.file.ends_with("application.py") && place.line == 2, "{place}");
    }
}
