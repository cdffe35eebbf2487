//! `cargo xtask bench backup`: the whole program beside pgBackRest, on the same cluster, in the same run:
//! full, incremental after a day's change, restore, restore after ten incrementals, the WAL archive. And
//! beside `cp -r` and `zstd`, so that the distance to what the machine can do is seen. With `--s3` both repositories
//! are in a real S3 server on this machine, whose work is then part of what is measured.

mod cluster;
mod peer;
mod program;
mod s3;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use cluster::Bench;
use peer::PgBackRest;
use program::{Program, Source};
use s3::S3;

/// Runs the benchmark.
pub async fn run(options: &[&str]) -> Result<()> {
    let value = |name: &str| {
        let at = options.iter().position(|option| *option == name)?;
        options.get(at + 1).copied()
    };
    let pgbackrest = value("--pgbackrest").map_or_else(|| PathBuf::from("pgbackrest"), PathBuf::from);
    let only = value("--only");
    if let Some(only) = only.filter(|only| !PARTS.contains(only)) {
        bail!("--only {only}: there are {}", PARTS.join(", "));
    }
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let gigabytes: f64 = value("--gb").unwrap_or("2").parse().context("--gb N")?;
    let version = peer::version(&pgbackrest);
    let bench = Bench::prepare(peer::newest_that_it_knows(version.as_deref()), gigabytes).await?;
    let s3 = if options.contains(&"--s3") { Some(S3::start(&bench)?) } else { None };
    let s3 = s3.as_ref();
    say(format!(
        "PostgreSQL {}, {:.2} GB; {}; zstd 1, encrypted, fsynced, two processes{}",
        bench.version(),
        bench.bytes()? as f64 / 1e9,
        version.as_deref().unwrap_or("no pgBackRest found: --pgbackrest PATH"),
        if s3.is_some() { "; both over S3 with TLS" } else { "" }
    ));
    limits(&bench)?;
    let peer = match version {
        Some(_) => Some(PgBackRest::prepare(&bench, &pgbackrest, s3)?),
        None => None,
    };
    let local = Program::prepare(&bench, "local", Source::Local, s3)?;
    let protocol = Program::prepare(&bench, "protocol", Source::Protocol, s3)?;
    let both = (&local, &protocol);
    if wanted("day") || wanted("restore") {
        days(&bench, both, peer.as_ref(), wanted("restore")).await?;
    }
    if wanted("wal") {
        wal(&bench, &protocol, peer.as_ref(), s3).await?;
    }
    Ok(())
}

/// What `--only` may name: the backups of the first day, these and those of ten days and restores, the WAL.
const PARTS: [&str; 3] = ["day", "restore", "wal"];

/// A full backup and one a day later; then those of ten days, with restores, if these are wanted.
async fn days(
    bench: &Bench,
    (local, protocol): (&Program, &Program),
    peer: Option<&PgBackRest>,
    with_restores: bool,
) -> Result<()> {
    let theirs = peer.map(|peer| peer.backup("full")).transpose()?;
    line("full, local", &local.backup()?, theirs.as_ref(), "0.65");
    line("full, over the protocol", &protocol.backup()?, theirs.as_ref(), "0.75");
    if with_restores {
        restores("restore", bench, local, peer)?;
    }
    bench.day(1).await?;
    let theirs = peer.map(|peer| peer.backup("incr")).transpose()?;
    line("a day later, local", &local.backup()?, theirs.as_ref(), "0.50, stored 0.50");
    line("a day later, over the protocol", &protocol.backup()?, theirs.as_ref(), "0.50, stored 0.50");
    if with_restores {
        for day in 2..=10 {
            bench.day(day).await?;
            local.backup()?;
            peer.map(|peer| peer.backup("incr")).transpose()?;
        }
        restores("restore after ten days", bench, local, peer)?;
    }
    Ok(())
}

/// What something cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    wall: Duration,
    /// Bytes that it added to the repository.
    stored: u64,
    /// The largest resident size of the process, in bytes; 0 where it was not measured.
    memory: u64,
}

fn restores(what: &str, bench: &Bench, ours: &Program, peer: Option<&PgBackRest>) -> Result<()> {
    let theirs = peer.map(|peer| peer.restore(bench)).transpose()?;
    line(what, &ours.restore(bench)?, theirs.as_ref(), "0.85");
    Ok(())
}

/// Segments that wait to be archived: pushed one by one as a server does, and received over the protocol.
async fn wal(bench: &Bench, pusher: &Program, peer: Option<&PgBackRest>, s3: Option<&S3>) -> Result<()> {
    const SEGMENTS: usize = 80;
    // In an archive of its own: what was pushed would be found there already.
    let receiver = Program::prepare(bench, "receiver", Source::Protocol, s3)?;
    receiver.keep_wal()?;
    let segments = bench.segments(SEGMENTS).await?;
    let rate = |wall: Duration| segments.len() as f64 / wall.as_secs_f64();
    let copied = timed(|| segments.iter().try_for_each(|segment| copy(segment, &bench.scratch("cp"))))?;
    say(format!("WAL, cp and sync: {:.0} segments/s", rate(copied)));
    let all: Vec<String> = segments.iter().map(|segment| segment.display().to_string()).collect();
    let script = format!("cat {} | zstd -q -1 -T2 > {}", all.join(" "), bench.scratch("wal.zst").display());
    if let Ok(packed) = timed(|| shell(&script)) {
        say(format!("WAL, cat | zstd -1 -T2: {:.1} segments/s", rate(packed)));
    }
    let theirs = peer.map(|peer| peer.push(&segments)).transpose()?.map(rate);
    if let Some(theirs) = theirs {
        say(format!("WAL, pgbackrest archive-push: {theirs:.1} segments/s"));
    }
    let ratio =
        |ours: f64| theirs.map(|theirs| format!(" = {:.1} x (bar 2)", ours / theirs)).unwrap_or_default();
    let (pushed, memory) = pusher.push(&segments)?;
    let pushed = rate(pushed);
    let memory = memory / 1_000_000;
    say(format!("WAL, obyra-db backup wal-push: {pushed:.1} segments/s, {memory} MB{}", ratio(pushed)));
    let (count, Cost { wall, memory, .. }) = receiver.receive(bench).await?;
    let received = count / wall.as_secs_f64();
    let memory = memory / 1_000_000;
    say(format!("WAL, obyra-db backup wal: {received:.1} segments/s, {memory} MB{}", ratio(received)));
    Ok(())
}

/// What the machine can do: nobody is below this.
fn limits(bench: &Bench) -> Result<()> {
    let target = bench.scratch("limit");
    let (data, folder) = (bench.data(), target.display());
    // Nobody backs up the log with the files.
    let files = format!("find {data} -path {data}/pg_wal -prune -o -type f -print | sort");
    let copied = timed(|| {
        let script =
            format!("mkdir {folder} && {files} | xargs cp --parents -t {folder} && sync -f {folder}");
        shell(&script)
    })?;
    std::fs::remove_dir_all(&target)?;
    let mut bytes = 0;
    let packed = timed(|| {
        let out = bench.scratch("limit.zst");
        let script = format!("{files} | xargs cat | zstd -q -1 -T2 > {}", out.display());
        shell(&script)?;
        bytes = std::fs::metadata(&out)?.len();
        std::fs::remove_file(out).map_err(Into::into)
    });
    let packed = match packed {
        Ok(packed) => {
            let ratio = bench.bytes()? as f64 / bytes as f64;
            format!("{:.2} s, {} MB, 1:{ratio:.1}", packed.as_secs_f64(), bytes / 1_000_000)
        }
        Err(error) => format!("not measured: {error}"),
    };
    say(format!("cp, synced: {:.2} s; cat | zstd -1 -T2: {packed}", copied.as_secs_f64()));
    Ok(())
}

fn line(what: &str, ours: &Cost, theirs: Option<&Cost>, bar: &str) {
    let mut told = format!("{what}: {:.2} s", ours.wall.as_secs_f64());
    if ours.stored > 0 {
        told += &format!(", {} MB stored", ours.stored / 1_000_000);
    }
    told += &format!(", {} MB of memory", ours.memory / 1_000_000);
    if let Some(theirs) = theirs {
        told += &format!("; pgBackRest {:.2} s", theirs.wall.as_secs_f64());
        if theirs.stored > 0 {
            told += &format!(", {} MB", theirs.stored / 1_000_000);
        }
        told += &format!(" = {:.2} x its time", ours.wall.as_secs_f64() / theirs.wall.as_secs_f64());
        if ours.stored > 0 && theirs.stored > 0 {
            told += &format!(", {:.2} x its size", ours.stored as f64 / theirs.stored as f64);
        }
        told += &format!(" (bar {bar})");
    }
    say(told);
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn copy(segment: &Path, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let to = folder.join(segment.file_name().context("a segment")?);
    std::fs::copy(segment, &to)?;
    std::fs::File::open(&to)?.sync_all().map_err(Into::into)
}

fn shell(script: &str) -> Result<()> {
    program::finish(program::command("sh").args(["-c", script]))
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its result")]
fn say(line: impl std::fmt::Display) {
    println!("{line}");
}
