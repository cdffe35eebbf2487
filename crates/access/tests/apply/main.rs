//! Policy, plan and apply on real clusters: as a superuser, as a CREATEROLE administrator like
//! that of a managed provider, on PostgreSQL 14 to 18.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod conflicts;
mod hazards;
mod model;
mod modes;
mod powers;
mod rows;
mod support;
mod versions;
