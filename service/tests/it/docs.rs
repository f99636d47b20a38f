//! Documents that are made of what the program has: they must not lag behind it.

use std::{fmt::Write as _, fs, path::PathBuf};

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

/// Every relative link of the documents leads to a file.
#[test]
fn links_lead_somewhere() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let documents = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.extension().is_some_and(|e| e == "md"));
    let top = ["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(|name| root.join(name));
    let mut seen = 0;
    for document in documents.chain(top) {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            seen += 1;
            assert!(document.parent().unwrap().join(file).exists(), "{}: {link}", document.display());
        }
    }
    assert!(seen > 5, "the links were not found");
}
