//! Tasks of the project itself: benchmarks beside the best peers. `cargo xtask bench access`, `… backup`, `… scan`,
//! `… gate`, and the rounds of the crash test: `… crash`.

mod bench;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match words.as_slice() {
        ["bench", "access", options @ ..] => runtime.block_on(bench::access::run(options)),
        ["bench", "backup", options @ ..] => runtime.block_on(bench::backup::run(options)),
        ["bench", "crash", options @ ..] => bench::crash::run(options),
        ["bench", "gate", options @ ..] => runtime.block_on(bench::gate::run(options)),
        ["bench", "scan", options @ ..] => bench::scan::run(options),
        _ => bail!(
            "usage: cargo xtask bench access [--large] [--runs N] [--no-peers] | backup [--pgbackrest PATH] [--gb N] [--only day|restore|wal] | crash [--rounds N] [--seed N] | gate [--runs N] | scan [--runs N] [--tree DIR]"
        ),
    }
}
