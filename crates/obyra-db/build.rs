//! Packs `examples/obyra-mini` into the binary, so that `demo` needs nothing but the binary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What running the application leaves behind, and what is no part of it.
const LEFT_OUT: [&str; 7] =
    ["page.png", "__pycache__", ".venv", "venv", ".obyra-db", "obyra-db.toml", "README.md"];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let example = root.join("../../examples/obyra-mini").canonicalize().expect("examples/obyra-mini");
    println!("cargo::rerun-if-changed={}", example.display());

    let mut files = Vec::new();
    collect(&example, &mut files);
    files.sort();
    let mut out =
        String::from("/// Path inside the application, content.\npub const FILES: &[(&str, &[u8])] = &[\n");
    for file in files {
        let name = file.strip_prefix(&example).expect("below the example").to_string_lossy();
        writeln!(out, "    ({name:?}, include_bytes!({:?})),", file.display().to_string()).expect("String");
    }
    out.push_str("];\n");
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("example.rs");
    fs::write(target, out).expect("OUT_DIR is writable");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if LEFT_OUT.contains(&name.as_str()) || name.ends_with(".pyc") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
