//! Writes the table of measured faults, between its two markers, into the file that it is given.

use std::{env, fs};

use anyhow::{Context as _, Result};
use daisi_ws_fleet::oracle::table;

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->";

fn main() -> Result<()> {
    let path = env::args().nth(1).context("which file? as in docs/faults.md")?;
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).context("the file has no begin marker")?;
    let (_, after) = rest.split_once(END).context("the file has no end marker")?;
    fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table::table(&table::kept()?)))?;
    Ok(())
}
