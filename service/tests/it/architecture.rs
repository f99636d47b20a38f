//! `ARCHITECTURE.md` tells of the code as it is: each stop of a path is a function where it says, each guarantee has its
//! paragraph and its tests.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use syn::{ImplItem, Item, TraitItem, Type};

/// A stop of a path: a function, `Type::name` or `name`, and the file where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stop {
    function: String,
    file: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

/// The text below a heading, up to the next of its level or above.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no section {heading}"));
    let level = heading.split(' ').next().unwrap().len();
    let ends = (1..=level).filter_map(|level| rest.find(&format!("\n{} ", "#".repeat(level))));
    ends.min().map_or(rest, |end| &rest[..end])
}

/// The paths, each with its stops: the numbered lines below a heading of the third level, which begin with a function and its
/// file.
fn paths(text: &str) -> Vec<(String, Vec<Stop>)> {
    let mut paths: Vec<(String, Vec<Stop>)> = Vec::new();
    for line in section(text, "## The paths").lines() {
        if let Some(name) = line.strip_prefix("### ") {
            paths.push((name.to_owned(), Vec::new()));
        } else if let Some((_, rest)) = line.split_once(". ").filter(|(number, _)| number.parse::<u32>().is_ok()) {
            let stop = stop(rest).unwrap_or_else(|| panic!("no function and file in: {line}"));
            paths.last_mut().expect("a stop is below a heading").1.push(stop);
        }
    }
    paths
}

/// "`Type::name` (`path/of/a/file.rs`)…"
fn stop(text: &str) -> Option<Stop> {
    let (function, rest) = text.strip_prefix('`')?.split_once("` (`")?;
    let (file, _) = rest.split_once("`)")?;
    Some(Stop { function: function.to_owned(), file: file.to_owned() })
}

/// All functions of a file: `name`, and `Type::name` for those of a type or a trait.
fn functions(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(&syn::parse_file(source).unwrap().items, &mut found);
    found
}

fn collect(items: &[Item], found: &mut BTreeSet<String>) {
    for item in items {
        match item {
            Item::Fn(function) => drop(found.insert(function.sig.ident.to_string())),
            Item::Mod(module) => collect(module.content.as_ref().map_or(&[], |(_, items)| items), found),
            Item::Impl(block) => {
                let Type::Path(path) = &*block.self_ty else { continue };
                let name = &path.path.segments.last().unwrap().ident;
                for item in &block.items {
                    if let ImplItem::Fn(function) = item {
                        found.insert(format!("{name}::{}", function.sig.ident));
                    }
                }
            }
            Item::Trait(block) => {
                for item in &block.items {
                    if let TraitItem::Fn(function) = item {
                        found.insert(format!("{}::{}", block.ident, function.sig.ident));
                    }
                }
            }
            _ => {}
        }
    }
}

/// What is wrong with these stops, given what a file holds.
fn missing(paths: &[(String, Vec<Stop>)], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut missing = Vec::new();
    for (path, stops) in paths {
        for Stop { function, file } in stops {
            match read(file) {
                None => missing.push(format!("{path}: there is no {file}")),
                Some(source) if !functions(&source).contains(function) => {
                    missing.push(format!("{path}: no {function} in {file}"));
                }
                Some(_) => {}
            }
        }
    }
    missing
}

#[test]
fn every_stop_of_a_path_is_a_function_where_the_document_says() {
    let missing = missing(&paths(&architecture()), |file| fs::read_to_string(root().join(file)).ok());
    assert_eq!(missing, [] as [String; 0]);
}

#[test]
fn there_are_seven_paths_of_eight_stops_at_most() {
    let paths = paths(&architecture());
    let names: Vec<&str> = paths.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Connect", "Event", "Forward", "Kill", "Move", "Renew", "Shutdown"]);
    for (name, stops) in &paths {
        assert!((2..=8).contains(&stops.len()), "{name} has {} stops", stops.len());
    }
}

#[test]
fn every_guarantee_is_defined_once_and_has_a_test_that_names_it() {
    let text = architecture();
    let guarantees = section(&text, "## Guarantees");
    let tests = sources(&root().join("service/tests/it"));
    for number in 1..=11 {
        let paragraphs = guarantees.lines().filter(|line| line.starts_with(&format!("**G{number} ")));
        assert_eq!(paragraphs.count(), 1, "G{number}");
        let named = tests.iter().any(|test| test.contains(&format!("fn g{number}_")));
        assert!(named, "no test names G{number}");
    }
}

/// A number that a comment mentions is one that the document defines.
#[test]
fn no_comment_names_a_guarantee_that_is_not_defined() {
    let text = architecture();
    let guarantees = section(&text, "## Guarantees");
    for source in ["service", "crates", "e2e"].iter().flat_map(|folder| sources(&root().join(folder))) {
        for line in source.lines().filter(|line| line.trim_start().starts_with("//")) {
            for number in line.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(|word| word.strip_prefix('G')) {
                let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                assert!(!is_number || guarantees.contains(&format!("\n**G{number} ")), "{line}");
            }
        }
    }
}

#[test]
fn a_stop_whose_function_was_renamed_or_moved_is_found() {
    let text = "# A\n\n## The paths\n\n### One\n\n1. `Hub::enter` (`hub.rs`): in.\n2. `free` (`hub.rs`): on.\n3. `Hub::gone` (`hub.rs`).\n\n### Two\n\n1. `Hub::enter` (`other.rs`).\n\n## More\n";
    let source =
        "struct Hub; impl Hub { fn enter(&self) {} } impl Clone for Hub { fn clone(&self) -> Self { Hub } } fn free() {}";
    let missing = missing(&paths(text), |file| (file == "hub.rs").then(|| source.to_owned()));
    assert_eq!(missing, ["One: no Hub::gone in hub.rs", "Two: there is no other.rs"]);
}

/// Every decision has its line in the index.
#[test]
fn the_index_of_decisions_is_complete() {
    let folder = root().join("docs/adr");
    let index = fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "{name} is not in the index");
    }
}

/// The text of every Rust file below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
    found
}
