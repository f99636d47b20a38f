//! A pod of the gateway.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::{keys::Keys, nats::Nats, redis::Redis, server::Server};
use crate::proc::{
    cpu::{self, Cpu},
    memory, owner,
};

/// Sockets that a pod takes: more than its open files allow, so that those are the limit.
const MAX_CONNECTIONS: &str = "20000";
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
        server.until(|_| async move { get(address, "/ready").is_ok().then_some(()) }).await?;
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
    pub(crate) fn metric(&self, name: &str, label: &str) -> Result<f64> {
        Ok(sum(&get(self.address, "/metrics")?, name, label))
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

/// The address that the log names.
fn announced(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("the pod serves"))?;
    serde_json::from_str::<serde_json::Value>(line).ok()?["http.address"].as_str()?.parse().ok()
}

/// The body of an answer with status 200.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{path} is answered with {}", answer.lines().next().unwrap_or_default());
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn sum(text: &str, name: &str, label: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        ((labels.is_empty() || labels.starts_with('{')) && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP a x\na 1\na_total{path=\"local\"} 2\na_total{path=\"forwarded\"} 3\n";

    #[test]
    fn a_metric_is_summed_over_the_series_with_a_label() {
        assert_eq!(sum(METRICS, "a_total", "forwarded").to_bits(), 3_f64.to_bits());
        assert_eq!(sum(METRICS, "a_total", "").to_bits(), 5_f64.to_bits());
        assert_eq!(sum(METRICS, "a", "").to_bits(), 1_f64.to_bits());
    }

    #[test]
    fn the_log_names_the_address() {
        let log = "{\"message\":\"other\"}\n{\"message\":\"the pod serves\",\"http.address\":\"127.0.0.1:81\"}\n";
        assert_eq!(announced(log), Some("127.0.0.1:81".parse().unwrap()));
        assert_eq!(announced("starting"), None);
    }
}
