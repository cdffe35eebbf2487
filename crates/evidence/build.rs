//! Turns `locales/<language>/<room>.toml` into `text::<room>::<CODE>` constants.
//!
//! The build fails when a code lacks its Spanish or English sentence, or when the two
//! name different fields: a missing text must be found here, not at 3 a.m.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

type Catalogue = BTreeMap<String, BTreeMap<String, String>>;

fn main() {
    println!("cargo::rerun-if-changed=locales");
    let english = read("locales/en");
    let spanish = read("locales/es");
    let complaints = compare(&english, &spanish);
    assert!(complaints.is_empty(), "the texts of the two languages differ:\n{}", complaints.join("\n"));

    let mut out = String::new();
    for (room, sentences) in &english {
        writeln!(out, "/// The codes of `{room}`.\npub mod {room} {{\n    use super::Code;").expect("String");
        for (key, en) in sentences {
            let es = &spanish[room][key];
            let name = key.replace('-', "_").to_uppercase();
            writeln!(out, "    /// {en:?}").expect("String");
            writeln!(
                out,
                "    pub const {name}: Code = Code {{ id: \"{room}.{key}\", en: {en:?}, es: {es:?} }};"
            )
            .expect("String");
        }
        out.push_str("}\n");
    }
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("text.rs");
    fs::write(target, out).expect("OUT_DIR is writable");
}

fn read(folder: &str) -> Catalogue {
    let mut catalogue = Catalogue::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}")) {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_some_and(|e| e == "toml") {
            catalogue.insert(stem(&path), sentences(&path));
        }
    }
    catalogue
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a file name").to_string_lossy().into_owned()
}

fn sentences(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn compare(english: &Catalogue, spanish: &Catalogue) -> Vec<String> {
    let mut complaints = Vec::new();
    let rooms: BTreeSet<_> = english.keys().chain(spanish.keys()).collect();
    for room in rooms {
        let (en, es) = (english.get(room), spanish.get(room));
        let empty = BTreeMap::new();
        let (en, es) = (en.unwrap_or(&empty), es.unwrap_or(&empty));
        for key in en.keys().chain(es.keys()).collect::<BTreeSet<_>>() {
            match (en.get(key), es.get(key)) {
                (Some(a), Some(b)) if fields(a) == fields(b) => {}
                (Some(_), Some(_)) => complaints.push(format!("{room}.{key}: the fields differ")),
                (Some(_), None) => complaints.push(format!("{room}.{key}: no Spanish text")),
                (None, _) => complaints.push(format!("{room}.{key}: no English text")),
            }
        }
    }
    complaints
}

/// The names in `{name}` and `{name|one|many}`.
fn fields(sentence: &str) -> BTreeSet<&str> {
    let insides = sentence.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    insides.filter_map(|(inside, _)| inside.split('|').next()).collect()
}
