//! The Redis of a run.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use daisi_ws_testbed::{redis, server::Server};
use tokio::time::timeout;

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
        let (address, server) = redis::start(folder).await?;
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
    pub(crate) async fn calls(&self) -> Result<BTreeMap<String, u64>> {
        timeout(ANSWER_TIMEOUT, redis::calls(self.address)).await.context("Redis does not answer")?
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
