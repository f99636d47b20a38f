//! `check-config`: is the configuration good, and what is in force?

use std::io;

use super::{error::CliError, identity::own_pod_id};
use crate::config::{Secrets, Sources, advertise_address, dump, host_address, host_name};

/// Prints what a pod started here and now would go by. The output is YAML.
pub(super) fn run(sources: &Sources, out: &mut dyn io::Write) -> Result<(), CliError> {
    let config = sources.load(Secrets::Required)?;
    let pod = own_pod_id(&config)?;
    let address = advertise_address(&config.server, &pod, config.server.grpc_port, || host_address(&host_name()));
    writeln!(out, "# This pod is {pod}; peers dial {address}.")?;
    match sources.file() {
        Some(file) => writeln!(out, "# Read from {}, the environment and the defaults.", file.display())?,
        None => writeln!(out, "# Read from the environment and the defaults; there is no file.")?,
    }
    for warning in config.warnings(sources) {
        writeln!(out, "# Warning: {} {}", warning.key, warning.reason)?;
    }
    Ok(out.write_all(dump(&config).as_bytes())?)
}
