//! The engine's own command line, for what is done to running containers; they are started by `testcontainers`.

use std::{net::IpAddr, process::Stdio};

use anyhow::{Context as _, Result, bail};
use testcontainers::bollard::models::HostConfig;
use tokio::process::Command;

/// Label of everything that the harness makes, so that what a killed run left behind can be told from other containers. Its value
/// is the harness's process id.
pub const LABEL: &str = "daisi-ws-e2e.pid";

/// For a container that is reached by its own address: without this, `testcontainers` publishes its ports on the host, where any
/// of them may have been taken by somebody's connection by the time that the engine binds it.
pub(crate) fn publish_nothing(host: &mut HostConfig) {
    host.publish_all_ports = Some(false);
}

/// Runs `docker ARGS` and returns what it printed.
///
/// # Errors
/// When it can't be run or fails; with its own words.
pub async fn docker(args: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.context("docker can't be run")?;
    if !output.status.success() {
        bail!("docker {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The address of a container in a network.
///
/// # Errors
/// When it has none, as it is stopped or cut off.
pub async fn address(container: &str, network: &str) -> Result<IpAddr> {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    let text = docker(&["inspect", "--format", &format, container]).await?;
    text.parse().with_context(|| format!("{container} has no address in {network}: {text:?}"))
}

/// A network of a run's own, removed when it is dropped.
pub(crate) struct Network {
    /// Its name.
    pub(crate) name: String,
    /// The address of this host in it.
    pub(crate) gateway: IpAddr,
}

impl Network {
    /// Makes a network on a private subnet that nobody uses yet. Its subnet is named, as only then may a container come back
    /// under the address that it had before it was cut off.
    ///
    /// # Errors
    /// When the engine makes none.
    pub(crate) async fn create(name: &str) -> Result<Self> {
        let label = format!("{LABEL}={}", std::process::id());
        let first = std::process::id() % 200;
        for attempt in 0..20 {
            let third = (first + attempt * 7) % 250;
            let (subnet, gateway) = (format!("10.213.{third}.0/24"), format!("10.213.{third}.1"));
            let made = docker(&["network", "create", "--label", &label, "--subnet", &subnet, "--gateway", &gateway, name]).await;
            match made {
                Ok(_) => return Ok(Self { name: name.to_owned(), gateway: gateway.parse()? }),
                Err(error) if error.to_string().contains("overlap") => {}
                Err(error) => return Err(error),
            }
        }
        bail!("every subnet that was tried is taken: run `docker network prune`")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Containers are gone by now: they are dropped before their network.
        let _ = std::process::Command::new("docker").args(["network", "rm", &self.name]).stdout(Stdio::null()).status();
    }
}
