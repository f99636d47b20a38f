//! A Redis of a run, and what it says of the commands that it was sent.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
};

use crate::{
    loopback::{free_address, listens},
    program,
    server::Server,
};

/// Starts one without persistence, and waits until it listens.
///
/// # Errors
/// When it does not start.
pub async fn start(folder: &Path) -> Result<(SocketAddr, Server)> {
    let address = free_address()?;
    let mut command = Command::new(program::redis());
    command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.arg("--dir").arg(folder);
    let mut server = Server::start("redis-server", command, folder).context(".ci/tools.sh brings it")?;
    server.until(|_| async move { listens(address).await.then_some(()) }).await?;
    Ok((address, server))
}

/// Calls so far, by command.
///
/// # Errors
/// When Redis does not answer.
pub async fn calls(of: SocketAddr) -> Result<BTreeMap<String, u64>> {
    let mut socket = BufReader::new(TcpStream::connect(of).await?);
    socket.write_all(b"INFO commandstats\r\n").await?;
    let mut length = String::new();
    socket.read_line(&mut length).await?;
    let length = length.trim().strip_prefix('$').and_then(|length| length.parse().ok());
    let mut text = vec![0; length.context("Redis tells nothing of its commands")?];
    socket.read_exact(&mut text).await?;
    Ok(read_calls(&String::from_utf8_lossy(&text)))
}

/// Lines are `cmdstat_set:calls=3,usec=…`.
fn read_calls(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((command.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_by_command() {
        let text = "# Commandstats\r\ncmdstat_set:calls=3,usec=9,usec_per_call=3.00\r\ncmdstat_config|get:calls=1,usec=2\r\n";
        assert_eq!(read_calls(text), BTreeMap::from([("set".to_owned(), 3), ("config|get".to_owned(), 1)]));
    }
}
