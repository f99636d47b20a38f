//! Crashes of Redis: with an old snapshot, and with a replica that takes over.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use daisi_ws_testbed::wait;

use super::container;
use crate::{
    containers::{
        cluster::Cluster,
        docker::docker,
        redis::{self, NO_DISK, Replica},
    },
    proxy::{Mode, Proxy},
};

/// Longest wait until a replica has all that its primary has.
const IN_STEP: Duration = Duration::from_secs(15);

impl Cluster {
    /// Takes a snapshot, with which a Redis that comes back will come back.
    ///
    /// # Errors
    /// When there is none.
    pub async fn snapshot(&self) -> Result<()> {
        ensure!(self.redis_cli(&["save"]).await? == "OK", "Redis takes no snapshot");
        Ok(())
    }

    /// Is this key in the snapshot that was taken last?
    ///
    /// # Errors
    /// When none was taken.
    pub async fn is_in_snapshot(&self, key: &str) -> Result<bool> {
        Ok(docker(&["exec", &self.redis, "cat", "/data/dump.rdb"]).await?.contains(key))
    }

    /// Ends a Redis that comes back: it is there again within tens of milliseconds, as it was at its last snapshot.
    ///
    /// # Errors
    /// When it does not run, or does not come back.
    pub async fn crash_redis(&self) -> Result<()> {
        let before = self.run_id().await.context("Redis does not run")?;
        docker(&["exec", &self.redis, "busybox", "killall", "-9", "redis-server"]).await?;
        let another = || async { self.run_id().await.is_some_and(|id| id != before) };
        wait::until("Redis is back", IN_STEP, another).await
    }

    async fn run_id(&self) -> Option<String> {
        let info = self.redis_cli(&["info", "server"]).await.ok()?;
        Some(info.lines().find_map(|line| line.strip_prefix("run_id:"))?.trim().to_owned())
    }

    /// Makes a replica, and waits until it has what Redis has.
    ///
    /// # Errors
    /// When it does not start, or never gets in step.
    pub async fn replicate(&mut self) -> Result<()> {
        let container = format!("{}-replica", self.redis);
        let link = Proxy::start(self.network.gateway, Arc::clone(&self.find_redis)).await?;
        let (host, port) = (link.address.ip().to_string(), link.address.port().to_string());
        let command: Vec<&str> = NO_DISK.into_iter().chain(["--replicaof", &host, &port]).collect();
        self.servers.push(redis::start(&container, self.network(), &command).await?);
        let replica = self.replica.insert(Replica { container, link });
        wait::until("the replica is in step", IN_STEP, || async {
            replica.redis_cli(&["info", "replication"]).await.is_ok_and(|info| info.contains("master_link_status:up"))
        })
        .await
    }

    /// Lets the replica fall behind: its link is half-open from now on.
    ///
    /// # Errors
    /// When there is no replica.
    pub fn let_replica_lag(&self) -> Result<()> {
        self.replica.as_ref().context("there is no replica")?.link.set(Mode::Stall);
        Ok(())
    }

    /// Makes the replica the primary, with what it has. The old one's connections end and what connects from then on reaches the
    /// new one, as when a name or an address moves from host to host; and the old one is ended.
    ///
    /// # Errors
    /// When there is no replica.
    pub async fn fail_over(&mut self) -> Result<()> {
        let replica = self.replica.take().context("there is no replica")?;
        ensure!(replica.redis_cli(&["replicaof", "no", "one"]).await? == "OK", "the replica is not promoted");
        self.find_redis = redis::lookup(&replica.container, self.network());
        // The engine is asked for the address now, so that the first connection has not to wait for it.
        (self.find_redis)().await.context("the replica has no address")?;
        for pod in &self.pods {
            pod.to_redis.turn_to(Arc::clone(&self.find_redis));
        }
        container::kill(&self.redis).await?;
        self.redis = replica.container;
        Ok(())
    }
}
