//! The checksum of every page of a stopped cluster.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use obyra_evidence::text;
use tokio::task::spawn_blocking;

use super::checks::Check;
use crate::Result;
use crate::page::{Page, RelationFile, Verdict, judge};
use crate::repository::layout::BLOCK;
use crate::repository::manifest::Header;
use crate::restore::{interrupted, path_failed};

/// Pages that are read at a time.
const PAGES: usize = 128;
/// Blocks of a segment of a relation, unless the server was compiled otherwise.
const SEGMENT_BLOCKS: u32 = 131_072;
/// Damaged pages that are named.
const NAMED: usize = 10;

pub(super) async fn check(backup: &Header, data: PathBuf) -> Result<Check> {
    let name = text::backup::DRILL_PAGES;
    if !backup.cluster.checksums {
        return Ok(Check::skipped(name, text::backup::DRILL_PAGES_WITHOUT));
    }
    let read = spawn_blocking(move || {
        let mut pages = Pages::default();
        for top in ["base", "global", "pg_tblspc"] {
            pages.folder(&data, &data.join(top))?;
        }
        Ok(pages)
    });
    let Pages { count, damaged } = read.await.map_err(interrupted).flatten()?;
    if damaged.is_empty() {
        return Ok(Check::passed(name, text::backup::DRILL_PAGES_SOUND.with("count", count)));
    }
    let named: Vec<&str> = damaged.iter().take(NAMED).map(String::as_str).collect();
    let found = text::backup::DRILL_PAGES_DAMAGED.with("count", damaged.len());
    Ok(Check::failed(name, found, named.join("\n")))
}

#[derive(Default)]
struct Pages {
    count: u64,
    damaged: Vec<String>,
}

impl Pages {
    /// Links are followed: they are those of the tablespaces, which the restore made.
    fn folder(&mut self, data: &Path, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).map_err(|e| path_failed(folder, &e))?;
        for entry in entries {
            let path = entry.map_err(|e| path_failed(folder, &e))?.path();
            if path.is_dir() {
                self.folder(data, &path)?;
                continue;
            }
            let relative = path.strip_prefix(data).unwrap_or(&path).to_string_lossy().into_owned();
            if let Some(file) = RelationFile::of(&relative).filter(|file| !file.temporary) {
                let first = file.first_block(SEGMENT_BLOCKS);
                self.file(&path, &relative, first).map_err(|e| path_failed(&path, &e))?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &str, first: u32) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; PAGES * BLOCK];
        let mut block = first;
        loop {
            let mut filled = 0;
            while filled < buffer.len() {
                match file.read(&mut buffer[filled..])? {
                    0 => break,
                    read => filled += read,
                }
            }
            let (pages, rest) = buffer[..filled].as_chunks::<BLOCK>();
            for page in pages {
                let page: &Page = page;
                if judge(page, block) != Verdict::Sound {
                    self.damaged.push(format!("{name} block {}", block - first));
                }
                block += 1;
                self.count += 1;
            }
            if !rest.is_empty() {
                self.damaged.push(format!("{name} ends within block {}", block - first));
            }
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }
}
