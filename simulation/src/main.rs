//! `daisi-ws-simulation`: see `simulation/README.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    daisi_ws_simulation::cli::main()
}
