//! A pod of the gateway.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use daisi_ws_testbed::{http, metrics, server::Server};
use tokio::process::Command;

use super::{keys::Keys, nats::Nats, redis::Redis};
use crate::proc::{
    cpu::{self, Cpu},
    memory, owner,
};

/// Sockets that a pod takes: more than its open files allow, so that those are the limit.
const MAX_CONNECTIONS: &str = "20000";
/// Longest wait for metrics, from a pod that is busy with the load.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A pod, started by the run or there before.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    pid: Option<u32>,
    server: Option<Server>,
}

/// What a pod is started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe<'a> {
    /// The program.
    pub(crate) service: &'a Path,
    pub(crate) keys: &'a Keys,
    pub(crate) nats: &'a Nats,
    pub(crate) redis: &'a Redis,
    /// Variables beside the necessary ones; they win.
    pub(crate) environment: &'a [(String, String)],
}

impl Pod {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub(crate) async fn start(name: &str, recipe: Recipe<'_>, folder: &Path) -> Result<Self> {
        let mut command = Command::new(recipe.service);
        command.arg("serve").env_clear().envs(recipe.keys.environment()).envs([
            ("DAISI_WS_SERVER_POD_ID", name),
            ("DAISI_WS_SERVER_BIND_ADDRESS", "127.0.0.1"),
            ("DAISI_WS_SERVER_HTTP_PORT", "0"),
            ("DAISI_WS_SERVER_GRPC_PORT", "0"),
            ("DAISI_WS_NATS_URL", &recipe.nats.url()),
            ("DAISI_WS_REDIS_ADDRESS", &recipe.redis.address.to_string()),
            ("DAISI_WS_APP_MAX_CONNECTIONS", MAX_CONNECTIONS),
            // What its memory is made of can be read by its own user, and it can be profiled.
            ("DAISI_WS_SERVER_CORE_DUMPS", "true"),
        ]);
        command.envs(recipe.environment.iter().map(|(key, value)| (key, value)));
        let mut server = Server::start(name, command, folder)?;
        let address = server.until(|log| async move { announced(&log) }).await?;
        server.until(|_| async move { is_ready(address).await.then_some(()) }).await?;
        Ok(Self { address, pid: Some(server.pid()?), server: Some(server) })
    }

    /// One that is there.
    pub(crate) fn existing(address: SocketAddr) -> Self {
        Self { address, pid: owner::of(address), server: None }
    }

    /// CPU time so far.
    ///
    /// # Errors
    /// When it runs elsewhere, or has ended.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        cpu::of(self.pid.context("the pod runs on another machine")?)
    }

    /// Memory that it alone holds.
    ///
    /// # Errors
    /// When it runs elsewhere, or has ended.
    pub(crate) fn private_bytes(&self) -> Result<u64> {
        memory::private_bytes(self.pid.context("the pod runs on another machine")?)
    }

    /// The sum of a metric's series whose labels contain `label`.
    ///
    /// # Errors
    /// When the pod does not answer.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let answer = http::get_within(ANSWER_TIMEOUT, self.address, "/metrics").await?;
        ensure!(answer.status == 200, "/metrics is answered with {}", answer.status);
        Ok(metrics::sum(&answer.body, name, label))
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

async fn is_ready(address: SocketAddr) -> bool {
    http::get(address, "/ready").await.is_ok_and(|answer| answer.status == 200)
}

/// The address that the log names.
fn announced(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("the pod serves"))?;
    serde_json::from_str::<serde_json::Value>(line).ok()?["http.address"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_the_address() {
        let log = "{\"message\":\"other\"}\n{\"message\":\"the pod serves\",\"http.address\":\"127.0.0.1:81\"}\n";
        assert_eq!(announced(log), Some("127.0.0.1:81".parse().unwrap()));
        assert_eq!(announced("starting"), None);
    }
}
