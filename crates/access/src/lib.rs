//! Access: roles, memberships, schemas, owners, privileges, default privileges, columns, row
//! security, extensions and settings, brought to what the strategy says.
//!
//! [`Policy`] is what is wanted, [`observe`] what is, [`plan`] the difference, [`apply`] the only effect.
//! Nothing is stored between runs: the catalogue is the truth.

mod acl;
mod apply;
mod import;
mod observe;
mod pattern;
mod plan;
pub mod policy;
mod privilege;
mod quote;
mod target;

pub use acl::{AclId, AclItem, Acls, PUBLIC_OID};
pub use apply::{Applied, Order, Patience, apply};
pub use import::{Imported, import, target_of};
pub use observe::*;
pub use pattern::{Pattern, Subject};
pub use plan::{Phase, Plan, Risk, Step, plan, plan_objects_as_owner};
pub use policy::Policy;
pub use privilege::{Held, Kind, Privileges, Wanted};
pub use target::{Provider, Target};

/// What this room returns.
pub type Result<T> = std::result::Result<T, obyra_evidence::Failure>;
