//! The table of the documents is made of the results that are beside this tool.

use std::{fs, path::Path, process::Command};

#[test]
fn the_table_of_performance_md_is_what_the_command_makes_of_the_results() {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new(env!("CARGO_BIN_EXE_daisi-ws-load")).arg("table").arg(tool.join("results")).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).expect("it is text");
    let document = fs::read_to_string(tool.join("../../docs/performance.md")).expect("it is there");
    let command = "cargo run -p daisi-ws-load -- table e2e/load/results --into docs/performance.md";
    assert!(document.contains(&table), "docs/performance.md is stale: {command}");
}
