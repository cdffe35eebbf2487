//! `cargo xtask bench crash`: the rounds of the crash test, more of them than a test run has time for.
//!
//! The scenario is the test's own, in `crates/obyra-db/tests/crash.rs`; a seed repeats its blows.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs the rounds.
pub fn run(options: &[&str]) -> Result<()> {
    let value = |name: &str| match options.iter().position(|option| *option == name) {
        Some(at) => options.get(at + 1).copied().with_context(|| format!("{name} N")).map(Some),
        None => Ok(None),
    };
    let mut test = cargo();
    test.args(["test", "--release", "-p", "obyra-db", "--test", "crash", "--", "--nocapture"]);
    test.env("OBYRA_DB_CRASH_ROUNDS", value("--rounds")?.unwrap_or("300"));
    if let Some(seed) = value("--seed")? {
        test.env("OBYRA_DB_CRASH_SEED", seed);
    }
    let status = test.status().context("cargo")?;
    if !status.success() {
        bail!("the seed that was printed first repeats it");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the scenario is a test program")]
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
