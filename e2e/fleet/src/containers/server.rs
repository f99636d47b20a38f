//! A server in a container of its own, and where it is found.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _, core::WaitFor, runners::AsyncRunner as _};
use tokio::time::Instant;

use super::docker::{self, LABEL, publish_nothing};
use crate::proxy::Lookup;

/// How long the address of a server is taken for granted.
const GOOD_FOR: Duration = Duration::from_millis(500);

/// Starts one and waits until it says `started`.
pub(crate) async fn start(
    image: (&str, &str),
    name: &str,
    network: &str,
    command: &[&str],
    started: WaitFor,
) -> Result<ContainerAsync<GenericImage>> {
    let request = GenericImage::new(image.0, image.1).with_wait_for(started).with_container_name(name).with_network(network);
    let request = request
        .with_label(LABEL, std::process::id().to_string())
        .with_cmd(command.iter().copied())
        .with_host_config_modifier(publish_nothing);
    request.start().await.with_context(|| format!("{}:{} does not start: has e2e/images/ensure.sh been run?", image.0, image.1))
}

/// Finds a container, wherever it is by now. What was found is good for a moment: a crowd that connects again after an outage
/// must not make as many processes that ask the engine.
pub(crate) fn lookup(container: &str, network: &str, port: u16) -> Lookup {
    type Found = Option<(Instant, Option<IpAddr>)>;
    let found: Arc<tokio::sync::Mutex<Found>> = Arc::default();
    let (container, network) = (container.to_owned(), network.to_owned());
    Arc::new(move || {
        let (container, network, found) = (container.clone(), network.clone(), Arc::clone(&found));
        Box::pin(async move {
            let mut found = found.lock().await;
            let ip = match *found {
                Some((at, ip)) if at.elapsed() < GOOD_FOR => ip,
                _ => docker::address(&container, &network).await.ok(),
            };
            if found.is_none_or(|(at, _)| at.elapsed() >= GOOD_FOR) {
                *found = Some((Instant::now(), ip));
            }
            ip.map(|ip| SocketAddr::new(ip, port))
        })
    })
}
