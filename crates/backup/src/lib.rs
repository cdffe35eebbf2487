//! Physical backups over PostgreSQL's own protocol into a repository of our own: taken, kept,
//! proven and restored.
//!
//! The format that is written is docs/repository-format.md. What is in the store is the truth; nothing
//! else is remembered between two runs. Nothing here reads the strategy file or prints.

pub mod adopt;
mod child;
pub mod copy;
pub mod drill;
pub mod expire;
pub mod export;
pub mod figures;
pub mod holdings;
pub mod page;
mod policy;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod take;
pub mod verify;
pub mod wal;

pub use policy::{
    Drill, Export, Keep, Key, Method, PgBackRest, Pitr, Policy, ServerSideEncryption, SmokeQuery, Source,
};

/// What every room returns.
pub type Result<T> = std::result::Result<T, obyra_evidence::Failure>;
