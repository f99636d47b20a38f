//! The README says of each invariant what it catches: what `.ci/mutants` found is held to what there is.

#![expect(clippy::unwrap_used, reason = "in a test that is how it fails")]

use std::{collections::BTreeSet, fs, path::Path};

use daisi_ws_simulation::invariants::ALL;

/// Seeds in which each mutation must be found.
const SEEDS: u64 = 1000;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the table in the README that begins with this line, as cells.
fn table(head: &str) -> Vec<Vec<String>> {
    let readme = fs::read_to_string(here().join("README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("{head}\n")).unwrap();
    let rows = rest.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Names of the mutations that a cell links to; a dash: none.
fn links(cell: &str) -> Vec<String> {
    let name = |link: &str| {
        let (name, rest) = link.trim_start_matches("[`").split_once("`]").unwrap();
        assert_eq!(rest, format!("(mutations/{name}.patch)"));
        name.to_owned()
    };
    cell.split(", ").filter(|link| *link != "–").map(name).collect()
}

/// Each mutation with the invariant that it breaks, and the first seed in which it does.
fn found() -> Vec<(String, String, u64)> {
    let rows = table("| Mutation | Broken | Seed |");
    rows.iter().map(|row| (links(&row[0]).remove(0), row[1].clone(), row[2].parse().unwrap())).collect()
}

#[test]
fn a_mutation_that_is_in_the_table_is_there_and_was_found_by_an_invariant_within_a_thousand_seeds() {
    let files = fs::read_dir(here().join("mutations")).unwrap();
    let files: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    for (name, broken, seed) in found() {
        assert!(files.contains(&format!("{name}.patch")), "{name} is gone: run .ci/mutants");
        assert!(ALL.contains(&broken.as_str()) && seed < SEEDS, "{name} breaks {broken} in seed {seed}");
    }
}

#[test]
fn every_invariant_is_listed_with_the_mutations_that_it_catches() {
    let (rows, found) = (table("| Invariant | Says | Catches |"), found());
    let names: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ALL);
    for row in &rows {
        let caught: Vec<&String> = found.iter().filter(|(_, broken, _)| *broken == row[0]).map(|(name, ..)| name).collect();
        assert_eq!(links(&row[2]).iter().collect::<Vec<_>>(), caught, "{}", row[0]);
    }
}
