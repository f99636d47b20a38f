//! Links of a cluster that are cut, stalled, slowed and opened again.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::{
    containers::{cluster::Cluster, docker::docker, pod::Pod},
    proxy::Mode,
};

/// Cuts and opens a link in turn; so many milliseconds pass between two changes.
async fn alternate<const N: usize>(pauses: [u64; N], until: Instant, set: impl Fn(Mode) -> Result<()>) -> Result<()> {
    for (pause, mode) in pauses.into_iter().cycle().zip([Mode::Cut, Mode::Open].into_iter().cycle()) {
        if Instant::now() >= until {
            break;
        }
        set(mode)?;
        sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

impl Cluster {
    /// Takes a pod off the network: nobody reaches it and it reaches nobody; no connection is reset.
    ///
    /// # Errors
    /// When it is not on it.
    pub async fn cut_off(&self, pod: &Pod) -> Result<()> {
        docker(&["network", "disconnect", self.network(), &pod.container]).await.map(drop)
    }

    /// Puts a pod back on the network, under the address that it had.
    ///
    /// # Errors
    /// When it can't be.
    pub async fn bring_back(&self, pod: &Pod) -> Result<()> {
        let ip = pod.ip()?.to_string();
        docker(&["network", "connect", "--ip", &ip, self.network(), &pod.container]).await.map(drop)
    }

    /// Does this to a pod's link to Redis.
    pub fn redis_link(&self, pod: &Pod, mode: Mode) {
        pod.to_redis.set(mode);
    }

    /// Does this to all links between a pod and its peers, both ways.
    ///
    /// # Errors
    /// When the pod has no address.
    pub fn peer_links(&self, pod: &Pod, mode: Mode) -> Result<()> {
        let source = pod.ip()?;
        for other in &self.pods {
            if other.id == pod.id {
                other.from_peers.set(mode);
            } else {
                other.from_peers.set_from(source, mode);
            }
        }
        Ok(())
    }

    /// Cuts and opens a pod's link to Redis and its links to its peers again and again, each in a rhythm of its own, until this
    /// time has passed; and opens them.
    ///
    /// # Errors
    /// When the pod has no address.
    pub async fn flap(&self, pod: &Pod, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        let redis = alternate([300, 700, 450, 600, 350], until, |mode| {
            self.redis_link(pod, mode);
            Ok(())
        });
        let peers = alternate([550, 400, 650, 300, 700, 500, 350], until, |mode| self.peer_links(pod, mode));
        tokio::try_join!(redis, peers)?;
        self.heal();
        Ok(())
    }

    /// Opens all links.
    pub fn heal(&self) {
        for pod in &self.pods {
            pod.to_redis.heal();
            pod.to_nats.heal();
            pod.from_peers.heal();
        }
        self.to_nats.heal();
    }
}
