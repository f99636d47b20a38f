//! The floor as a process of its own.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use daisi_ws_testbed::server::Server;
use tokio::process::Command;

use super::nats::Nats;
use crate::{
    floor::ANNOUNCEMENT,
    proc::{
        cpu::{self, Cpu},
        memory,
    },
};

/// A running floor.
#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) address: SocketAddr,
    pid: u32,
    server: Server,
}

impl Floor {
    /// Starts one and waits until it listens and is subscribed: to events as they are published, or to a durable consumer of the
    /// stream.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(name: &str, nats: &Nats, durable: bool, folder: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", "--nats", &nats.address.to_string()]);
        if durable {
            nats.make_durable().await?;
            command.arg("--durable");
        }
        let mut server = Server::start(name, command, folder)?;
        let address = server
            .until(|log| async move { log.lines().find_map(|line| line.strip_prefix(ANNOUNCEMENT)?.trim().parse().ok()) })
            .await?;
        Ok(Self { address, pid: server.pid()?, server })
    }

    /// CPU time so far.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        cpu::of(self.pid)
    }

    /// Memory that it alone holds.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn private_bytes(&self) -> Result<u64> {
        memory::private_bytes(self.pid)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it can't be ended.
    pub(crate) async fn end(self) -> Result<()> {
        self.server.end().await
    }
}
