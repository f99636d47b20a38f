//! Redis in a container: how it is started, found and asked.

use anyhow::Result;
use testcontainers::{ContainerAsync, GenericImage, core::WaitFor};

use super::{docker::docker, server};
use crate::proxy::{Lookup, Proxy};

/// The image, as the compose files name it; `e2e/images/ensure.sh` sees that it is there.
const IMAGE: (&str, &str) = ("redis", "8-alpine");
/// Port of Redis.
const PORT: u16 = 6379;
/// Starts a Redis that keeps nothing.
pub(crate) const NO_DISK: [&str; 5] = ["redis-server", "--save", "", "--appendonly", "no"];
/// Starts one that is started again the moment that it ends, with the snapshot that was taken last. What is in the snapshot can
/// be read.
pub(crate) const COMES_BACK: [&str; 3] =
    ["sh", "-c", "while :; do redis-server --protected-mode no --dir /data --save '' --appendonly no --rdbcompression no; done"];

/// A replica of the cluster's Redis.
pub struct Replica {
    /// Its container's name.
    pub container: String,
    /// Carries its connection to its primary.
    pub link: Proxy,
}

/// Starts a Redis.
pub(crate) async fn start(name: &str, network: &str, command: &[&str]) -> Result<ContainerAsync<GenericImage>> {
    server::start(IMAGE, name, network, command, WaitFor::message_on_stdout("Ready to accept connections")).await
}

/// Finds the Redis of this name.
pub(crate) fn lookup(container: &str, network: &str) -> Lookup {
    server::lookup(container, network, PORT)
}

/// Asks the Redis of this container by its own command line.
pub(super) async fn ask(container: &str, arguments: &[&str]) -> Result<String> {
    let mut words = vec!["exec", container, "redis-cli"];
    words.extend_from_slice(arguments);
    docker(&words).await
}

impl Replica {
    /// Asks it by its own command line.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn redis_cli(&self, arguments: &[&str]) -> Result<String> {
        ask(&self.container, arguments).await
    }
}
