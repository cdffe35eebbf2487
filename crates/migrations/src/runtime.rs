//! Runtime alterations: the statements that an application sends whenever it starts, so that its tables are what
//! its code expects. They may do so only where a second time changes nothing.
//!
//! [`read`] takes the statements out of Python and SQL, [`check`] proves each by reading and by running it twice on a
//! throw-away server; what is proven can be written as files, applied, and turned into a revision.

mod apply;
mod block;
mod check;
mod condition;
mod errors;
mod export;
mod files;
mod form;
mod guard;
mod judge;
mod object;
mod plan;
mod prove;
mod python;
mod question;
mod revision;
mod tokens;
mod trial;

use obyra_evidence::{Finding, Place, Result};

pub use self::apply::{Applied, Planned, apply};
pub use self::check::{Bench, Check, Checked, Start, Verdict, check};
pub(crate) use self::check::{Reached, check_at};
use self::errors::Caught;
pub use self::export::{Export, Exported};
pub use self::files::{Helper, folder, found};
pub use self::plan::{Action, Observed, Plan, Step, observe, plan};
pub use self::prove::Ground;
use self::prove::Guard;
pub use self::revision::{Draft, draft};
pub use crate::gate::Site;

/// A statement that is sent, and what surrounds it.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Where it is sent.
    pub place: Place,
    /// Its text.
    pub sql: String,
    /// The call that sends it, in Python.
    pub call: Option<String>,
    /// The conditions under which it is sent.
    when: Vec<Guard>,
    /// The handlers that hide its failure, the innermost first.
    caught: Vec<Handler>,
}

/// A handler that hides failures.
#[derive(Clone, Debug)]
struct Handler {
    caught: Caught,
    place: Place,
    /// The failure leaves what was sent before as it is: the statement has a savepoint or a transaction of its own.
    apart: bool,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The statements, in the order in which they are sent.
    pub statements: Vec<Statement>,
    /// Calls whose statement is known only at run time, with their place.
    pub unread: Vec<(Place, String)>,
    /// What is wrong with the files themselves.
    pub findings: Vec<Finding>,
}

/// Reads the statements of files. Nothing of them is run.
pub fn read(helper: &Helper) -> Result<Reading> {
    files::on_a_large_stack(|| {
        let mut all = Reading::default();
        for file in helper.files() {
            let reading = files::read(file);
            all.statements.extend(reading.statements);
            all.unread.extend(reading.unread);
            all.findings.extend(reading.findings);
        }
        all
    })
}
