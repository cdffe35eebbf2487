//! Alembic's migrations: which revisions there are, which the database stands at, and the
//! deploy that brings it to the head and proves it from a second connection.
//!
//! Alembic is driven, not replaced: `driver.py` runs its own API in the application's Python.
//! Nothing is believed from an exit code.

pub mod apply;
pub mod baseline;
pub mod driver;
mod explain;
pub mod gate;
pub mod graph;
pub mod observe;
pub mod plan;
mod policy;
pub mod python;
pub mod runtime;
pub mod scan;
pub mod stamp;

pub use apply::{Committed, Converge, Deployed, DeployedRevision, Deployment, Unconverged, deploy};
pub use observe::{Observed, VersionTable, observe};
pub use plan::{Plan, plan};
pub use policy::{Configuration, GatePolicy, Policy};
pub use python::{PythonEnvironment, PythonSearch, find_or_make};
