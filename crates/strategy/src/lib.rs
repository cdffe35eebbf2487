//! The strategy file: read, layered for each environment, and checked as a whole.
//!
//! This room composes the sections of the capabilities and decides nothing about them. What
//! is wrong with a file is reported all at once, each with its line and column.

pub mod environment;
mod load;
mod meaning;
mod path;
mod problems;
mod reference;
mod report;
mod schema;
pub mod sections;
mod shape;
mod source;
mod strategy;
mod template;
mod tree;
mod unbuilt;
pub mod values;

pub use environment::{Environment, Reach, Replica, RunsOn, Stage};
pub use problems::Problems;
pub use reference::render_reference;
pub use schema::schema;
pub use sections::secrets::Store;
pub use strategy::Strategy;
pub use unbuilt::{NotBuilt, not_built};
pub use values::Network;
