//! A NATS server of a run.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::{
    loopback::{free_address, listens},
    program,
    server::Server,
};

/// Starts one with JetStream, whose store is below `folder` and holds at most so much, as in `4G`; waits until it listens.
///
/// # Errors
/// When it does not start.
pub async fn start(folder: &Path, store: &str) -> Result<(SocketAddr, Server)> {
    let address = free_address()?;
    let config = folder.join("nats.conf");
    let text = format!("listen: \"{address}\"\njetstream {{ store_dir: {:?}, max_file_store: {store} }}\n", folder.join("store"));
    fs::write(&config, text)?;
    let mut command = Command::new(program::nats());
    command.arg("-c").arg(config);
    let mut server = Server::start("nats-server", command, folder).context(".ci/tools.sh brings it")?;
    server.until(|_| async move { listens(address).await.then_some(()) }).await?;
    Ok((address, server))
}
