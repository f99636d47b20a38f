//! The Redis of a run.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::server::{Server, free_address, listens, program};
use crate::proc::{cpu, cpu::Cpu, owner};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A Redis, started by the run or there before.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    pid: Option<u32>,
    server: Option<Server>,
}

impl Redis {
    /// Starts one without persistence.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(program("REDIS_SERVER", "redis-server"));
        command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.arg("--dir").arg(folder);
        let mut server = Server::start("redis-server", command, folder)?;
        server.until(|_| async move { listens(address).await.then_some(()) }).await?;
        Ok(Self { address, pid: Some(server.pid()?), server: Some(server) })
    }

    /// One that is there.
    pub(crate) fn existing(address: SocketAddr) -> Self {
        Self { address, pid: owner::of(address), server: None }
    }

    /// CPU time so far; none if it runs elsewhere.
    pub(crate) fn cpu(&self) -> Option<Cpu> {
        cpu::of(self.pid?).ok()
    }

    /// Calls so far, by command.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn calls(&self) -> Result<BTreeMap<String, u64>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(b"INFO commandstats\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut length = String::new();
        reader.read_line(&mut length)?;
        let length = length.trim().strip_prefix('$').and_then(|length| length.parse().ok());
        let mut text = vec![0; length.context("Redis tells nothing of its commands")?];
        reader.read_exact(&mut text)?;
        Ok(calls(&String::from_utf8_lossy(&text)))
    }

    /// Ends it, if the run has started it.
    ///
    /// # Errors
    /// When it can't be ended.
    pub(crate) async fn end(self) -> Result<()> {
        match self.server {
            Some(server) => server.end().await,
            None => Ok(()),
        }
    }
}

/// Lines are `cmdstat_set:calls=3,usec=…`.
fn calls(text: &str) -> BTreeMap<String, u64> {
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
        assert_eq!(calls(text), BTreeMap::from([("set".to_owned(), 3), ("config|get".to_owned(), 1)]));
    }
}
