//! Documents that are made of what the program has: they must not lag behind it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use daisi_ws_service::config::is_reloadable;

const DEFAULTS: &str = include_str!("../../config/default.yaml");

const HEAD: &str = "# Configuration

Made of [`service/config/default.yaml`](../service/config/default.yaml); `UPDATE_DOCS=1 cargo test -p daisi-ws-service --test it docs::` makes it anew.

A YAML file (`--config`, else `DAISI_WS_CONFIG`, else `config/config.yaml` if it exists) needs only what differs from these defaults. The environment wins over it:
`DAISI_WS_` + section + `_` + key in upper case, as in `DAISI_WS_SERVER_HTTP_PORT`; lists are separated by commas. A secret may come from a file that
`DAISI_WS_…_FILE` names. An unknown key, or a value of the wrong kind, stops the start with an error that names the key; `daisi-ws-service check-config` lists all that is wrong at once,
or prints what is in force, without secrets.

A change of the file, or SIGHUP, reloads the keys marked so. A reload with an error in it changes nothing; what waits for the next start is named in the log and counted in
`dws_config_keys_waiting`, and nothing sees it before. What is checked is what will be in force: new values that go with each other, but not with one that waits, are refused.

Every number has an upper bound, far above any use; an error names it.
";

/// `default.yaml` as a document: a table a section.
fn configuration() -> String {
    let mut text = HEAD.to_owned();
    let (mut path, mut comment): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut rows = 0;
    for line in DEFAULTS.lines() {
        let content = line.trim_start();
        if let Some(more) = content.strip_prefix('#') {
            comment.push(more.trim());
            continue;
        }
        let Some((name, value)) = content.split_once(':') else {
            comment.clear();
            continue;
        };
        path.truncate((line.len() - content.len()) / 2);
        path.push(name);
        let (key, about) = (path.join("."), std::mem::take(&mut comment).join(" "));
        let value = value.trim();
        if value.is_empty() {
            let _ = write!(text, "\n{} `{key}`\n\n{about}\n", "#".repeat(path.len() + 1));
            rows = 0;
            continue;
        }
        if rows == 0 {
            text.push_str("\n| Key | Default | Meaning | Takes effect |\n|---|---|---|---|\n");
        }
        rows += 1;
        let meaning = about.trim_end_matches(" Reload.").trim_end_matches(" Restart.").replace('|', "\\|");
        let when = if is_reloadable(&key) { "reload" } else { "restart" };
        let _ = writeln!(text, "| `{key}` | `{value}` | {meaning} | {when} |");
    }
    text
}

#[test]
fn configuration_md_is_made_of_the_defaults() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let wanted = configuration();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == wanted, "docs/configuration.md is stale: UPDATE_DOCS=1 cargo test -p daisi-ws-service --test it docs::");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files below a folder whose name ends so; not what tools make or fetch.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            let is_made = ["target", "node_modules", ".git", "result"].contains(&name);
            found.extend(if is_made { Vec::new() } else { files(&path, endings) });
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found
}

/// A heading as the part of a link behind its `#`.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.trim().replace(' ', "-")
}

/// Every relative link of a document leads to a file, and to a heading of it where it names one.
#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for document in files(&root(), &[".md"]) {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            if file.contains(':') || file.starts_with('<') {
                continue;
            }
            seen += 1;
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", document.display());
            if !heading.is_empty() && target.extension().is_some_and(|ending| ending == "md") {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings =
                    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')));
                assert!(headings.any(|other| other == heading), "{}: no heading for {link}", document.display());
            }
        }
    }
    assert!(seen > 50, "the links were not found");
}

/// What the repository refers to is in it: nobody can look up a paper that is not.
#[test]
fn nothing_refers_to_a_paper_that_is_not_in_the_repository() {
    // In two pieces each, as this file is read as well.
    let papers = [("the ", "seed"), ("seed ", "section"), ("the ", "contract"), ("design", ".md"), ("contract", ".md")];
    let papers = papers.into_iter().chain([("lessons", ".md"), ("style", ".md")]).map(|(head, tail)| format!("{head}{tail}"));
    let papers: Vec<String> = papers.collect();
    let endings =
        [".rs", ".md", ".yml", ".yaml", ".nix", ".sh", ".toml", ".js", ".ts", ".tsx", ".json", ".html", ".proto", ".py"];
    let mut found = Vec::new();
    for path in files(&root(), &endings).into_iter().chain(files(&root().join(".ci"), &[""])) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let text = text.to_lowercase();
        // A seed of chance is none of them.
        let has_chance = text.contains("rng") || path.components().any(|part| part.as_os_str() == "simulation");
        for paper in papers.iter().filter(|paper| !(has_chance && paper.ends_with("seed"))) {
            // The suites of the ports' contracts are here.
            let is_suite = |rest: &str| ["s ", " suite", " test"].iter().any(|suite| rest.starts_with(suite));
            if text.split(paper.as_str()).skip(1).any(|rest| !is_suite(rest)) {
                found.push(format!("{}: {paper}", path.display()));
            }
        }
    }
    assert_eq!(found, [] as [String; 0]);
}
