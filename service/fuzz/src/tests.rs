use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::*;

/// Files of all corpora together, and bytes of one.
const FILES: usize = 300;

/// What is allocated is counted for the whole process, so these tests run one by one.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).map(|found| found.map(|entry| entry.unwrap().path()).collect()).unwrap();
    files.sort();
    files
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files(&folder().join("corpus").join(target.name));
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// A number drawn from the one before: the same in every run.
fn draw(from: &mut u64) -> usize {
    *from = from.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*from >> 33).unwrap()
}

/// What a fuzzer would make of an input, and of another one.
fn mutated(input: &[u8], other: &[u8], chance: &mut u64) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=draw(chance) % 4 {
        let at = draw(chance) % (bytes.len() + 1);
        match draw(chance) % 5 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, u8::try_from(draw(chance) % 256).unwrap()),
            2 => bytes.extend_from_slice(&other[draw(chance) % (other.len() + 1)..]),
            3 => drop(bytes.splice(at..at, other.iter().copied().take(draw(chance) % 16))),
            _ if at < bytes.len() => bytes[at] ^= 1 << (draw(chance) % 8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn every_target_holds_on_every_file_of_its_corpus() {
    let _alone = alone();
    for target in TARGETS {
        let files = corpus(target);
        assert!(files.len() > 1, "{} has no corpus", target.name);
        for (_, input) in files {
            target.check(&input);
        }
    }
}

#[test]
fn every_target_holds_on_what_is_nearly_of_its_corpus() {
    let _alone = alone();
    for target in TARGETS {
        let (files, mut chance) = (corpus(target), 1);
        for (_, input) in &files {
            for _ in 0..20 {
                let (_, other) = &files[draw(&mut chance) % files.len()];
                target.check(&mutated(input, other, &mut chance));
            }
        }
    }
}

#[test]
#[cfg(feature = "gateway")]
fn every_target_has_its_program_and_its_corpus_and_nobody_else_has() {
    use std::collections::BTreeSet;

    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len());
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let found = |of: &str| files(&folder().join(of)).iter().map(stem).collect::<BTreeSet<_>>();
    assert_eq!(found("fuzz_targets"), names);
    assert_eq!(found("corpus"), names);
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let programs = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""));
    assert_eq!(programs.map(str::to_owned).collect::<BTreeSet<_>>(), names);
}

#[test]
fn the_corpora_are_small_enough_to_be_replayed_each_time() {
    let all: Vec<_> = TARGETS.iter().flat_map(|target| corpus(target)).collect();
    assert!(all.len() <= FILES, "{} files", all.len());
    for (file, input) in all {
        assert!(input.len() <= LONGEST, "{} would be passed over", file.display());
    }
}

#[test]
#[should_panic(expected = "bytes of memory for an input of 0, and 1024 at most are due")]
fn who_takes_more_memory_than_is_due_is_found() {
    static GREEDY: Target = Target::new("greedy", Bound { fixed: 1024, each: 1 }, |_| drop(vec![0_u8; 1 << 20]));
    let _alone = alone();
    GREEDY.check(&[]);
    GREEDY.check(&[]);
}

#[test]
#[should_panic(expected = "bytes of memory are kept since the first input")]
fn who_keeps_memory_is_found() {
    static LEAK: Target = Target::new("leak", Bound { fixed: 1 << 20, each: 1 }, |_| std::mem::forget(vec![0_u8; 1 << 18]));
    let _alone = alone();
    for _ in 0..20 {
        LEAK.check(&[]);
    }
}
